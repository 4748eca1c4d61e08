//! One client's connection, from its first byte to its last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use legwork_query::Engine;
use pgwire::api::auth::{
    DefaultServerParameterProvider, finish_authentication, protocol_negotiation, save_startup_parameters_to_metadata,
};
use pgwire::api::{
    ClientInfo, DefaultClient, NoopHandler, PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::Startup;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, SslNegotiationMetaMessage};
use pgwire::tokio::server::{PgWireMessageServerCodec, process_error, process_message};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::codec::Framed;

use super::PostgresLimits;
use super::cancel::{Canceller, Registration, Registry};
use super::catalog::Catalog;
use super::error::fatal;
use super::frames::Framing;
use super::handler::Backend;
use super::rows;
use super::statement::{Prepared, SqlParser};

type Socket = Framed<Framing<TcpStream>, PgWireMessageServerCodec<Arc<Prepared>>>;

/// SSL and GSS requests before the startup: clients send one of each.
const NEGOTIATIONS_MAX: usize = 4;
/// To write a last message.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// A peer that is gone without a word is noticed after this and three probes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What the connections of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    engine: Arc<dyn Engine>,
    limits: PostgresLimits,
    registry: Arc<Registry>,
    ids: RandomPidSecretKeyGenerator,
    parser: Arc<SqlParser>,
    catalog: Catalog,
}

impl Shared {
    pub(crate) fn new(engine: Arc<dyn Engine>, limits: PostgresLimits) -> Shared {
        let parser = Arc::new(SqlParser::new(limits.sql_bytes_max));
        Shared {
            engine,
            limits,
            registry: Arc::default(),
            ids: RandomPidSecretKeyGenerator::default(),
            parser,
            catalog: Catalog::default(),
        }
    }
}

/// What a connection was let in as; released when it ends.
#[derive(Debug)]
pub(crate) enum Place {
    /// A client.
    Client(#[allow(dead_code, reason = "held until dropped")] OwnedSemaphorePermit),
    /// Beyond the limit: may cancel queries, and is told that the server is full.
    Extra(#[allow(dead_code, reason = "held until dropped")] OwnedSemaphorePermit),
}

/// Resolves when the server ends.
pub(crate) async fn ended(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

/// Serves one connection to its end.
pub(crate) async fn run(shared: Arc<Shared>, stream: TcpStream, place: Place, mut shutdown: watch::Receiver<bool>) {
    if let Err(error) = Box::pin(serve_client(&shared, stream, &place, &mut shutdown)).await {
        tracing::debug!(%error, "a PostgreSQL connection ended");
    }
}

async fn serve_client(
    shared: &Shared,
    stream: TcpStream,
    place: &Place,
    shutdown: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream)
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4).with_retries(3))?;
    // Parameters of a statement may be longer than its text.
    let message_bytes_max = shared.limits.sql_bytes_max.saturating_mul(4).saturating_add(64 * 1024);
    let codec = PgWireMessageServerCodec::new(DefaultClient::new(peer, false));
    let mut socket: Socket = Framed::new(Framing::new(stream, message_bytes_max), codec);
    let handshake = tokio::select! {
        () = ended(shutdown) => return Ok(()),
        handshake = tokio::time::timeout(shared.limits.handshake_max, handshake(shared, &mut socket)) => handshake,
    };
    let Some(startup) = handshake.map_err(io::Error::other)?? else { return Ok(()) };
    if let Place::Extra(_) = place {
        let message = format!("sorry, too many clients already: the limit is {}", shared.limits.connections_max);
        return farewell(&mut socket, fatal("53300", message)).await;
    }
    let started = tokio::time::timeout(shared.limits.handshake_max, start(shared, &mut socket, &startup)).await;
    match started.map_err(io::Error::other)? {
        Ok((backend, _registration)) => converse(shared, &mut socket, backend, shutdown).await,
        Err(error) => farewell(&mut socket, into_fatal(error)).await,
    }
}

fn into_fatal(error: PgWireError) -> ErrorInfo {
    let mut info = ErrorInfo::from(error);
    "FATAL".clone_into(&mut info.severity);
    info
}

/// Up to the startup message; none when the connection was for a cancel request or ended.
async fn handshake(shared: &Shared, socket: &mut Socket) -> io::Result<Option<Startup>> {
    for _ in 0..NEGOTIATIONS_MAX {
        match socket.next().await {
            Some(Ok(PgWireFrontendMessage::SslNegotiation(negotiation))) => match negotiation {
                SslNegotiationMetaMessage::PostgresSsl(_) => {
                    socket.send(PgWireBackendMessage::SslResponse(SslResponse::Refuse)).await?;
                }
                SslNegotiationMetaMessage::PostgresGss(_) => {
                    socket.send(PgWireBackendMessage::GssEncResponse(GssEncResponse::Refuse)).await?;
                }
                _ => socket.set_state(PgWireConnectionState::AwaitingStartup),
            },
            Some(Ok(PgWireFrontendMessage::CancelRequest(request))) => {
                shared.registry.cancel(request.pid, &request.secret_key);
                return Ok(None);
            }
            Some(Ok(PgWireFrontendMessage::Startup(startup))) => return Ok(Some(startup)),
            Some(Ok(_)) => return Ok(None),
            Some(Err(error)) => {
                farewell(socket, fatal("08P01", error.to_string())).await?;
                return Ok(None);
            }
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Answers the startup: no authentication.
async fn start(shared: &Shared, socket: &mut Socket, startup: &Startup) -> PgWireResult<(Arc<Backend>, Registration)> {
    protocol_negotiation(socket, startup).await?;
    save_startup_parameters_to_metadata(socket, startup);
    let (pid, secret) = shared.ids.generate(socket);
    socket.set_pid_and_secret_key(pid, secret.clone());
    let canceller = Canceller::new();
    let registration = shared.registry.register(pid, secret, canceller.clone());
    let session = shared.engine.session();
    shared.catalog.install(session.context(), pid)?;
    let backend = Arc::new(Backend::new(session, shared.parser.clone(), canceller, shared.limits.statement_max));
    finish_authentication(socket, &server_parameters()).await?;
    Ok((backend, registration))
}

fn server_parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = super::settings::SERVER_VERSION.to_owned();
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    "UTC".clone_into(&mut parameters.time_zone);
    "ISO, MDY".clone_into(&mut parameters.date_style);
    parameters
}

/// Message by message until the client leaves, stalls or the server ends.
async fn converse(
    shared: &Shared,
    socket: &mut Socket,
    backend: Arc<Backend>,
    shutdown: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let nobody = Arc::new(NoopHandler);
    loop {
        let message = tokio::select! {
            biased;
            () = ended(shutdown) => return farewell(socket, shutting_down()).await,
            message = socket.next() => message,
        };
        let message = match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Ok(message)) => message,
            Some(Err(error)) => return farewell(socket, fatal("08P01", error.to_string())).await,
        };
        let is_extended = message.is_extended_query();
        // The statements of a simple query are bounded one by one.
        let message_max = match message {
            PgWireFrontendMessage::Query(_) => Duration::MAX,
            _ => shared.limits.statement_max,
        };
        let (authenticator, copy_in, cancel) = (nobody.clone(), nobody.clone(), nobody.clone());
        let work = process_message(message, socket, authenticator, backend.clone(), backend.clone(), copy_in, cancel);
        let outcome = tokio::select! {
            biased;
            () = ended(shutdown) => None,
            outcome = rows::in_time(message_max, work) => Some(outcome),
        };
        match outcome {
            None => return farewell(socket, shutting_down()).await,
            Some(Ok(())) => {}
            Some(Err(PgWireError::IoError(error))) => return Err(error),
            Some(Err(error)) => {
                let sent =
                    tokio::time::timeout(shared.limits.handshake_max, process_error(socket, error, is_extended)).await;
                sent.map_err(io::Error::other)??;
            }
        }
    }
}

fn shutting_down() -> ErrorInfo {
    fatal("57P01", "the server is shutting down")
}

/// The last message, when the client still takes it.
async fn farewell(socket: &mut Socket, info: ErrorInfo) -> io::Result<()> {
    let goodbye = async {
        socket.send(PgWireBackendMessage::ErrorResponse(info.into())).await?;
        socket.close().await
    };
    tokio::time::timeout(FAREWELL_MAX, goodbye).await.unwrap_or(Ok(()))
}
