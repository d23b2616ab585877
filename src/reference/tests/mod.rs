//! The promises, over real HTTP, on SQLite and on PostgreSQL.
//!
//! The PostgreSQL ones make databases of their own in the server that `CUTOVER_TEST_POSTGRES` names; those over AMQP need the
//! broker that `CUTOVER_TEST_AMQP` names.

mod amqp;
mod faults;
mod fixture;
mod ledger;
mod promises;
mod queries;
mod sequences;
mod tls;
