//! What the service shows of a table by answering plain selects.
//!
//! No capability is needed for the most of it: a select that names every column of legacy's is refused where one is
//! missing, also over an empty table, and a whole row shows which columns there are beside them and how their values
//! are spelled. Any service answers that. What a table refuses or cuts, types, keys and relations, only a service
//! with `describe` tells.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::keyed::{CALLS_AT_ONCE, read};
use super::{Call, Capability, Storage, StorageError, UnixMs};
use crate::contract::{Code, Describe, Description, Epoch, Query, Row, Select};
use crate::schema::Table;

/// What was seen of a table.
#[derive(Clone, PartialEq, Debug)]
pub enum Look {
    /// The service does not know the table.
    NoTable,
    /// It knows it.
    Table {
        /// The columns of legacy's that it refuses to name.
        lacks: Vec<String>,
        /// Some row of it, whole; none when it is empty.
        row: Option<Row>,
        /// What the service says of it, where it has `describe`.
        description: Option<Description>,
    },
}

impl Storage {
    /// Looks at a table as legacy knows it: two reads of one row, one more for each column where some are missing,
    /// and its description.
    ///
    /// # Errors
    /// Those of a call; `Rejected` when the service refuses for another reason than a name.
    pub async fn look_at(&self, table: &Table, epoch: Epoch) -> Result<Look, StorageError> {
        let every = table.columns.iter().map(|column| column.name.clone());
        let lacks = match self.one_row(table, Some(every.collect()), epoch).await {
            Ok(_) => Vec::new(),
            Err(error) => match refused_name(&error) {
                Some(Code::UnknownTable) => return Ok(Look::NoTable),
                Some(_) => self.lacking(table, epoch).await?,
                None => return Err(error),
            },
        };
        let row = self.one_row(table, None, epoch).await?;
        let description = match self.capabilities.has(Capability::Describe) {
            true => Some(self.description(table, epoch).await?),
            false => None,
        };
        Ok(Look::Table {
            lacks,
            row,
            description,
        })
    }

    async fn description(&self, table: &Table, epoch: Epoch) -> Result<Description, StorageError> {
        let describe = Describe {
            table: table.name.clone(),
        };
        let deadline = UnixMs::after(self.rpc_deadline());
        let call = Call::new(Query::Describe(describe), deadline, epoch);
        read(&self.call(&call).await?)
    }

    /// The columns that are refused by name, each asked for alone.
    async fn lacking(&self, table: &Table, epoch: Epoch) -> Result<Vec<String>, StorageError> {
        let names: Vec<String> = table.columns.iter().map(|one| one.name.clone()).collect();
        let lacking: Vec<Option<String>> = stream::iter(names)
            .map(|name| self.lacks(table, name, epoch))
            .buffered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(lacking.into_iter().flatten().collect())
    }

    /// The column's name, if it is refused.
    async fn lacks(
        &self,
        table: &Table,
        name: String,
        epoch: Epoch,
    ) -> Result<Option<String>, StorageError> {
        match self.one_row(table, Some(vec![name.clone()]), epoch).await {
            Ok(_) => Ok(None),
            Err(error) if refused_name(&error).is_some() => Ok(Some(name)),
            Err(error) => Err(error),
        }
    }

    async fn one_row(
        &self,
        table: &Table,
        columns: Option<Vec<String>>,
        epoch: Epoch,
    ) -> Result<Option<Row>, StorageError> {
        let select = Select {
            table: table.name.clone(),
            columns,
            limit: Some(1),
            include_deleted: table.policy.soft_delete.is_some(),
            ..Select::default()
        };
        let deadline = UnixMs::after(self.rpc_deadline());
        let call = Call::new(Query::Select(select), deadline, epoch);
        let rows: Vec<Row> = read(&self.call(&call).await?)?;
        Ok(rows.into_iter().next())
    }
}

/// The code of a refusal that is about a name.
fn refused_name(error: &StorageError) -> Option<Code> {
    match error {
        StorageError::Rejected(error) => match error.code {
            code @ (Code::UnknownTable | Code::UnknownColumn) => Some(code),
            _ => None,
        },
        StorageError::Unavailable(_) | StorageError::InDoubt(_) => None,
    }
}
