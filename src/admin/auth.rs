//! Who asks, and whether they may.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;

use crate::config::{AdminToken, Role, TokenHash};
use crate::contract::{Code, Error};

use super::AdminState;
use super::failed::Answer;

/// The name of whoever asks, for the audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Actor(pub(super) String);

/// Who asks, as `admit` left it on the request.
pub(super) fn actor_of(extensions: &axum::http::Extensions) -> String {
    extensions
        .get::<Actor>()
        .map_or_else(|| "unknown".to_owned(), |actor| actor.0.clone())
}

/// Lets those in who may look.
pub(super) async fn viewer(
    State(state): State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Answer {
    admit(&state, request, next, Role::Viewer).await
}

/// Lets those in who may look, where metrics are protected, and everybody where not.
pub(super) async fn scraper(
    State(state): State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Answer {
    if !state.protect_metrics {
        return Ok(next.run(request).await);
    }
    admit(&state, request, next, Role::Viewer).await
}

/// Lets those in who may act.
pub(super) async fn operator(
    State(state): State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Answer {
    admit(&state, request, next, Role::Operator).await
}

async fn admit(state: &AdminState, mut request: Request, next: Next, needs: Role) -> Answer {
    let presented = presented(request.headers());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let loopback = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    let tokens = state.tokens.load();
    let actor = if tokens.is_empty() {
        by_operator_token(&state.operator_token, presented.as_ref(), loopback, needs)
    } else {
        by_named_token(&tokens, presented.as_ref(), needs)
    };
    let actor = actor.inspect_err(|error| {
        tracing::warn!(path = request.uri().path(), %error, "the admin plane refused a request");
    })?;
    request.extensions_mut().insert(actor);
    Ok(next.run(request).await)
}

/// The hash of the bearer token (RFC 6750), so that nothing after this sees the token.
fn presented(headers: &HeaderMap) -> Option<TokenHash> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| TokenHash::of(token.trim()))
}

fn by_named_token(
    tokens: &[AdminToken],
    presented: Option<&TokenHash>,
    needs: Role,
) -> Result<Actor, Error> {
    let presented = presented.ok_or_else(|| unauthorized("a bearer token is required"))?;
    // All are compared, so that the time does not tell which was nearly right.
    let known = tokens.iter().fold(None, |found, token| {
        if token.hash.matches(presented) {
            Some(token)
        } else {
            found
        }
    });
    let known = known.ok_or_else(|| unauthorized("the token is not known"))?;
    if known.role < needs {
        let message = format!("{} may look, not change", known.name);
        return Err(Error::new(Code::Forbidden, message));
    }
    Ok(Actor(known.name.clone()))
}

/// Without named tokens: whoever is on this machine may look, and whoever can read the proxy's files may act.
fn by_operator_token(
    operator: &TokenHash,
    presented: Option<&TokenHash>,
    loopback: bool,
    needs: Role,
) -> Result<Actor, Error> {
    if !loopback {
        let message = "without configured tokens the admin plane answers on loopback only";
        return Err(Error::new(Code::Forbidden, message));
    }
    match presented {
        Some(presented) if operator.matches(presented) => Ok(Actor("operator".to_owned())),
        Some(_) => Err(unauthorized("the token is not the operator token")),
        None if needs == Role::Viewer => Ok(Actor("anonymous".to_owned())),
        None => Err(unauthorized(
            "the operator token is required: start-up writes it to data/operator.token",
        )),
    }
}

fn unauthorized(message: &str) -> Error {
    Error::new(Code::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<Actor, Error>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn a_viewer_may_look_and_not_act() {
        let tokens = [AdminToken {
            name: "grace".to_owned(),
            hash: TokenHash::of("look"),
            role: Role::Viewer,
        }];
        let hash = TokenHash::of("look");
        let looked = by_named_token(&tokens, Some(&hash), Role::Viewer);
        assert_eq!(looked, Ok(Actor("grace".to_owned())));
        let acted = by_named_token(&tokens, Some(&hash), Role::Operator);
        assert_eq!(code(acted), Code::Forbidden);
        let nobody = by_named_token(&tokens, None, Role::Viewer);
        assert_eq!(code(nobody), Code::Unauthorized);
    }

    #[test]
    fn without_named_tokens_only_this_machine_is_answered() {
        let operator = TokenHash::of("written at start");
        let ask = |presented: Option<&TokenHash>, loopback, needs| {
            by_operator_token(&operator, presented, loopback, needs)
        };
        assert!(ask(None, true, Role::Viewer).is_ok());
        assert_eq!(code(ask(None, true, Role::Operator)), Code::Unauthorized);
        assert!(ask(Some(&operator), true, Role::Operator).is_ok());
        assert_eq!(
            code(ask(Some(&operator), false, Role::Viewer)),
            Code::Forbidden
        );
        let wrong = TokenHash::of("guess");
        assert_eq!(
            code(ask(Some(&wrong), true, Role::Viewer)),
            Code::Unauthorized
        );
    }

    #[test]
    fn only_bearer_tokens_count() {
        let mut headers = HeaderMap::new();
        assert_eq!(presented(&headers), None);
        headers.insert(AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(presented(&headers), None);
        headers.insert(AUTHORIZATION, "bearer abc".parse().unwrap());
        assert_eq!(presented(&headers), Some(TokenHash::of("abc")));
    }
}
