//! Answers a client's messages: one per connection, with the engine's session of that connection.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use futures::stream::{self, BoxStream};
use futures::{Sink, SinkExt, StreamExt};
use legwork_query::Session;
use parking_lot::Mutex;
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{
    ExtendedQueryHandler, SimpleQueryHandler, send_partial_query_response, send_query_response, send_ready_for_query,
};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Execute, Parse, ParseComplete, Sync as PgSync,
};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::ParameterStatus;

use super::cancel::Canceller;
use super::copy;
use super::error::{error, from_query, unsupported, warning};
use super::names;
use super::parameters::{bound_text, prepare};
use super::rows::{self, Ends};
use super::settings::{self, Command, Settings};
use super::statement::{Prepared, SqlParser, Work};

/// Prepared statements of one connection.
const NAMES_MAX: usize = 1_000;
/// Portals of one connection at once: each holds its parameters.
const PORTALS_MAX: usize = 100;

/// One connection's answers.
#[derive(Debug)]
pub(crate) struct Backend {
    session: Arc<dyn Session>,
    parser: Arc<SqlParser>,
    canceller: Canceller,
    settings: Mutex<Settings>,
    /// pgwire's store cannot list its statements.
    names: Mutex<HashSet<String>>,
    portals: Mutex<HashSet<String>>,
    /// To answer one statement and have its answer read.
    statement_max: Duration,
    /// What the client said of its parameters comes with each statement.
    statement_parser: Arc<StatementParser>,
}

impl Backend {
    pub(crate) fn new(
        session: Arc<dyn Session>,
        parser: Arc<SqlParser>,
        canceller: Canceller,
        statement_max: Duration,
    ) -> Backend {
        let statement_parser = Arc::new(StatementParser { session: session.clone(), parser: parser.clone() });
        Backend {
            session,
            parser,
            canceller,
            settings: Mutex::default(),
            names: Mutex::default(),
            portals: Mutex::default(),
            statement_max,
            statement_parser,
        }
    }

    fn ends(&self) -> Ends {
        Ends::new(self.canceller.statement(), self.settings.lock().statement_timeout())
    }

    /// Starts a query: columns and rows. What is to be known beside them is sent.
    async fn start<C>(
        &self,
        client: &mut C,
        text: &str,
        format: &Format,
    ) -> PgWireResult<(Arc<Vec<FieldInfo>>, BoxStream<'static, RowResult>)>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut ends = self.ends();
        let result = ends.or(self.session.query(text)).await?.map_err(from_query)?;
        for notice in &result.notices {
            client.feed(warning(notice)).await?;
        }
        let fields = Arc::new(rows::fields(&names::shown(rows::wire_schema(&result.schema)), format)?);
        Ok((fields.clone(), rows::data_rows(rows::batches(result, ends), fields)))
    }

    async fn engine_command(&self, text: &str) -> PgWireResult<()> {
        let mut ends = self.ends();
        let result = ends.or(self.session.query(text)).await?.map_err(from_query)?;
        rows::drain(rows::batches(result, ends)).await
    }

    fn show(&self, name: &'static str, format: &Format) -> PgWireResult<QueryResponse> {
        let schema = settings::show_schema(name);
        let fields = Arc::new(rows::fields(&schema, format)?);
        let shown = self.settings.lock().shown(name);
        let batch = RecordBatch::try_new(schema, shown).map_err(|cause| error("XX000", cause.to_string()));
        let rows = rows::data_rows(stream::once(async { batch }).boxed(), fields.clone());
        let mut response = QueryResponse::new(fields, rows);
        response.set_command_tag("SHOW");
        Ok(response)
    }

    /// Does what a statement about the connection says. *Returns* its tag.
    async fn command<C>(&self, client: &mut C, command: &Command) -> PgWireResult<&'static str>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let Some((tag, status)) = settings::transaction(command, client.transaction_status()) {
            client.set_transaction_status(status);
            return Ok(tag);
        }
        match command {
            Command::Set(name, value) => {
                let told = self.settings.lock().set(name, value.clone())?;
                if let Some((name, value)) = told {
                    client.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value))).await?;
                }
                Ok("SET")
            }
            Command::Reset(name) => {
                self.settings.lock().reset(name);
                Ok("RESET")
            }
            Command::ResetAll => {
                self.reset_all().await;
                Ok("RESET")
            }
            Command::Discard => {
                self.reset_all().await;
                self.forget(client, None);
                client.portal_store().clear_portals();
                Ok("DISCARD ALL")
            }
            Command::Deallocate(name) => {
                self.forget(client, name.as_deref());
                Ok(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" })
            }
            Command::Nothing(tag) => Ok(tag),
            _ => Err(unsupported("this statement is not supported here")),
        }
    }

    async fn reset_all(&self) {
        self.settings.lock().reset_all();
        // An engine without settings of its own may refuse; then there is nothing to reset.
        if let Err(refused) = self.engine_command("RESET ALL").await {
            tracing::debug!(%refused, "the engine's settings were not reset");
        }
    }

    /// Removes one prepared statement, or all.
    fn forget<C>(&self, client: &C, name: Option<&str>)
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        let mut names = self.names.lock();
        let forgotten: Vec<String> = match name {
            Some(name) => names.take(name).into_iter().collect(),
            None => names.drain().collect(),
        };
        for name in forgotten {
            client.portal_store().rm_statement(&name);
        }
    }

    /// One statement of a simple query with its whole answer.
    async fn answer<C>(&self, client: &mut C, work: &Work) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        refuse_in_failed(client.transaction_status(), work)?;
        let tag = match work {
            Work::Query { text, tag } => {
                let (fields, rows) = self.start(client, text, &Format::UnifiedText).await?;
                let mut response = QueryResponse::new(fields, rows);
                response.set_command_tag(tag);
                return send_query_response(client, response, true).await;
            }
            Work::Local(Command::Show(name)) => {
                return send_query_response(client, self.show(name, &Format::UnifiedText)?, true).await;
            }
            Work::Copy(copy) => {
                let (fields, rows) = self.start(client, &copy.text, &copy.value_format()).await?;
                return copy::send(client, copy, &fields, rows).await;
            }
            Work::EngineCommand { text, tag } => {
                self.engine_command(text).await?;
                tag
            }
            Work::Local(command) => self.command(client, command).await?,
        };
        client.feed(PgWireBackendMessage::CommandComplete(Tag::new(tag).into())).await?;
        Ok(())
    }

    /// The first `Execute` of a portal. *Returns* its rows, when it has any; else the answer was sent.
    async fn open<C>(&self, client: &mut C, portal: &Portal<Arc<Prepared>>) -> PgWireResult<Option<QueryResponse>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        refuse_in_failed(client.transaction_status(), &prepared.work)?;
        match &prepared.work {
            Work::Query { text, tag } => {
                let text = bound_text(&self.parser, text, &prepared.parameters, portal)?;
                let (fields, rows) = self.start(client, &text, &portal.result_column_format).await?;
                let mut response = QueryResponse::new(fields, rows);
                response.set_command_tag(tag);
                Ok(Some(response))
            }
            Work::Local(Command::Show(name)) => self.show(name, &portal.result_column_format).map(Some),
            work => self.answer(client, work).await.map(|()| None),
        }
    }
}

type RowResult = PgWireResult<pgwire::messages::data::DataRow>;

fn refuse_in_failed(status: TransactionStatus, work: &Work) -> PgWireResult<()> {
    let ends = matches!(work, Work::Local(Command::Commit | Command::Rollback | Command::RollbackToSavepoint));
    if status == TransactionStatus::Error && !ends {
        return Err(error("25P02", "current transaction is aborted, commands ignored until end of transaction block"));
    }
    Ok(())
}

#[async_trait]
impl SimpleQueryHandler for Backend {
    /// Statement by statement: the next one starts when the answer of the one before has been sent.
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        client.set_state(PgWireConnectionState::QueryInProgress);
        let statements = self.parser.parse(&query.query)?;
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for work in &statements {
            rows::in_time(self.statement_max, self.answer(client, work)).await?;
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, _client: &mut C, _query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(unsupported("queries are answered as they come"))
    }
}

/// Prepares statements for pgwire.
#[derive(Debug)]
pub(crate) struct StatementParser {
    session: Arc<dyn Session>,
    parser: Arc<SqlParser>,
}

#[async_trait]
impl QueryParser for StatementParser {
    type Statement = Arc<Prepared>;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Arc<Prepared>>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = self.parser.parse(sql)?;
        match statements.len() {
            0 => return Ok(None),
            1 => {}
            _ => return Err(error("42601", "cannot insert multiple commands into a prepared statement")),
        }
        let work = statements.remove(0);
        refuse_in_failed(client.transaction_status(), &work)?;
        let prepared = prepare(self.session.as_ref(), &self.parser, work, types).await?;
        Ok(Some(Arc::new(prepared)))
    }

    fn get_parameter_types(&self, statement: &Arc<Prepared>) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameters.iter().map(|parameter| parameter.pg_type.clone()).collect())
    }

    fn get_result_schema(&self, statement: &Arc<Prepared>, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match &statement.schema {
            Some(schema) => rows::fields(schema, format.unwrap_or(&Format::UnifiedText)),
            None => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Backend {
    type Statement = Arc<Prepared>;
    type QueryParser = StatementParser;

    fn query_parser(&self) -> Arc<StatementParser> {
        self.statement_parser.clone()
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if self.names.lock().len() >= NAMES_MAX && !self.names.lock().contains(name) {
            return Err(error(
                "54000",
                format!("this connection has {NAMES_MAX} prepared statements: DEALLOCATE some"),
            ));
        }
        match StoredStatement::parse(client, &message, self.query_parser()).await? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(name),
        }
        self.names.lock().insert(name.to_owned());
        client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statement_name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal_name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let entry = client.portal_store().get_statement(statement_name);
        let n_wanted = match &entry {
            None => return Err(error("26000", "there is no prepared statement of that name")),
            Some(Entry::Empty) => 0,
            Some(Entry::Value(statement)) => statement.statement.parameters.len(),
        };
        let (n_given, n_formats) = (message.parameters.len(), message.parameter_format_codes.len());
        if n_given != n_wanted || (n_formats > 1 && n_formats != n_given) {
            let what = format!(
                "bind supplies {n_given} parameters and {n_formats} formats, the statement requires {n_wanted}"
            );
            return Err(error("08P01", what));
        }
        {
            let mut portals = self.portals.lock();
            if portals.len() >= PORTALS_MAX && !portals.contains(portal_name) {
                return Err(error("54000", format!("this connection has {PORTALS_MAX} open portals: close some")));
            }
            portals.insert(portal_name.to_owned());
        }
        match entry {
            Some(Entry::Value(statement)) => {
                let portal = Portal::try_new(&message, statement)?;
                if let Some(schema) = &portal.statement.statement.schema {
                    rows::fields(schema, &portal.result_column_format)?;
                }
                client.portal_store().put_portal(Arc::new(portal));
            }
            _ => client.portal_store().put_empty_portal(portal_name),
        }
        client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    /// Streams; pgwire's own would gather all rows first.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        client.set_state(PgWireConnectionState::QueryInProgress);
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let rows_max = usize::try_from(message.max_rows).unwrap_or(0);
        match client.portal_store().get_portal(name) {
            None => return Err(error("34000", "there is no portal of that name")),
            Some(Entry::Empty) => {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?
            }
            Some(Entry::Value(portal)) => {
                let state = portal.state();
                let mut state = state.lock().await;
                if matches!(*state, PortalExecutionState::Initial) {
                    *state = match self.open(client, &portal).await? {
                        Some(mut response) => {
                            if rows_max > 0 {
                                let rows = std::mem::replace(&mut response.data_rows, stream::empty().boxed());
                                response.data_rows = rows::expiring(rows, self.statement_max);
                            }
                            PortalExecutionState::Suspended(response)
                        }
                        None => {
                            client.set_state(PgWireConnectionState::ReadyForQuery);
                            return Ok(());
                        }
                    };
                }
                let is_suspended = match &mut *state {
                    PortalExecutionState::Suspended(response) => {
                        send_partial_query_response(client, response, rows_max).await?
                    }
                    _ => {
                        client
                            .feed(PgWireBackendMessage::CommandComplete(Tag::new("SELECT").with_rows(0).into()))
                            .await?;
                        false
                    }
                };
                if !is_suspended {
                    *state = PortalExecutionState::Finished;
                }
            }
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    /// Outside a transaction, portals end here, as with PostgreSQL.
    async fn on_sync<C>(&self, client: &mut C, _message: PgSync) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let status = client.transaction_status();
        if status == TransactionStatus::Idle {
            client.portal_store().clear_portals();
            self.portals.lock().clear();
        }
        client.send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status))).await?;
        Ok(())
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match message.target_type {
            b'S' => self.forget(client, Some(name)),
            b'P' => {
                client.portal_store().rm_portal(name);
                self.portals.lock().remove(name);
            }
            _ => return Err(error("08P01", "close names neither a statement nor a portal")),
        }
        client.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn do_query<C>(
        &self,
        _client: &mut C,
        _portal: &Portal<Self::Statement>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(unsupported("portals are answered as they come"))
    }
}
