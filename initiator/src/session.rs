//! A session over one connection: moves the engine's bytes and waits for its completions.

use std::time::Duration;

use bytes::Bytes;
use iscsi_pdu::{Cdb, LogoutOutcome, Lun, TaskFunction, TaskOutcome};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::{Connection, Pipe};
use crate::engine::Engine;
use crate::receiver::Receiver;
use crate::tasks::{Done, TextTask};
use crate::url::is_iscsi_name;
use crate::{
    Command, CommandError, Error, LoginOptions, Negotiated, Notice, PeerError, ScsiOutcome, TaskTag, Transfer, login,
};

/// Opens a TCP connection for a session, without Nagle's delay.
pub async fn connect(host: &str, port: u16, timeout_ms: u64) -> Result<TcpStream, Error> {
    let stream = timeout(Duration::from_millis(timeout_ms), TcpStream::connect((host, port)))
        .await
        .map_err(|_| Error::Timeout {
            waiting_for: "TCP connection",
            timeout_ms,
        })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A command that has ended.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub tag: TaskTag,
    /// How.
    pub result: Result<ScsiOutcome, CommandError>,
}

/// A logged-in session.
///
/// Nothing moves unless one of its methods is being awaited; all of them may be cancelled and called again.
#[derive(Debug)]
pub struct Session<S> {
    pipe: Pipe<S>,
    engine: Engine,
    timeout_ms: u64,
    is_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Logs in over an open stream.
    pub async fn login(stream: S, options: &LoginOptions) -> Result<Session<S>, Error> {
        Session::login_over(Connection::new(stream), options).await
    }

    /// Logs in over a connection that may have been used for something else first.
    pub async fn login_over(mut connection: Connection<S>, options: &LoginOptions) -> Result<Session<S>, Error> {
        if !is_iscsi_name(&options.initiator_name) {
            return Err(Error::Misuse(
                "the initiator's name is not an iSCSI name (iqn., eui. or naa.)",
            ));
        }
        let outcome = login::login(&mut connection, options).await?;
        let keys = &outcome.negotiated;
        // Only now: login PDUs have no digests, and their segments are limited to 8192 bytes (RFC 7143 §6.3, §13.12).
        connection.pipe.receiver = Receiver::new(keys.max_recv_data_segment_bytes);
        connection.set_digests(keys.header_digest, keys.data_digest);
        let Connection { pipe, framing, .. } = connection;
        let engine = Engine::new(outcome, framing, options.cid);
        Ok(Session {
            pipe,
            engine,
            timeout_ms: options.timeout_ms,
            is_over: false,
        })
    }

    /// What was agreed at login.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.engine.negotiated
    }

    /// How long to wait for an answer from now on, in milliseconds.
    pub fn set_timeout_ms(&mut self, timeout_ms: u64) {
        self.timeout_ms = timeout_ms;
    }

    /// Takes a command on. It is sent as soon as the command window has room and something is awaited.
    pub fn submit(&mut self, command: Command) -> Result<TaskTag, Error> {
        self.check_alive()?;
        self.engine.scsi(command).map(TaskTag)
    }

    /// Requests taken on whose end has not come or has not been collected yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }

    /// Waits for any command of [`submit`](Session::submit) to end.
    pub async fn next_completion(&mut self) -> Result<Completion, Error> {
        self.wait_for("SCSI response", |engine| {
            let at = engine.done.iter().position(|(_, done)| matches!(done, Done::Scsi(_)))?;
            match engine.done.remove(at)? {
                (tag, Done::Scsi(result)) => Some(Completion {
                    tag: TaskTag(tag),
                    result,
                }),
                _ => None,
            }
        })
        .await
    }

    /// Carries out one command and waits for its end.
    pub async fn scsi(&mut self, lun: Lun, cdb: impl Into<Cdb>, transfer: Transfer) -> Result<ScsiOutcome, Error> {
        let tag = self.submit(Command::new(lun, cdb, transfer))?;
        match self.done(tag.0, "SCSI response").await? {
            Done::Scsi(result) => Ok(result?),
            _ => Err(PeerError::Unexpected {
                what: "answer to a command",
            }
            .into()),
        }
    }

    /// Sends a NOP-Out with this ping data and waits for the echo: the round trip through the target's iSCSI layer.
    pub async fn nop(&mut self, ping: impl Into<Bytes>) -> Result<Duration, Error> {
        self.check_alive()?;
        let tag = self.engine.nop(ping.into())?;
        let start = Instant::now();
        match self.done(tag, "NOP-In").await? {
            Done::Nop => Ok(start.elapsed()),
            Done::Rejected(reason) => Err(CommandError::Rejected(reason).into()),
            _ => Err(PeerError::Unexpected {
                what: "answer to a ping",
            }
            .into()),
        }
    }

    /// Asks for a task management function. Commands it ends complete with [`CommandError::Aborted`].
    pub async fn task_management(
        &mut self,
        function: TaskFunction,
        lun: Lun,
        referenced: Option<TaskTag>,
    ) -> Result<TaskOutcome, Error> {
        self.check_alive()?;
        let tag = self
            .engine
            .task_management(function, lun, referenced.map(|tag| tag.0))?;
        match self.done(tag, "task management response").await? {
            Done::TaskManagement(outcome) => Ok(outcome),
            Done::Rejected(reason) => Err(CommandError::Rejected(reason).into()),
            _ => Err(PeerError::Unexpected {
                what: "answer to a task management request",
            }
            .into()),
        }
    }

    /// One Text Request and its answer: the segment, and (LUN, TTT) to ask with for the rest.
    pub(crate) async fn text(&mut self, lun: Lun, ttt: u32, text: Vec<u8>) -> Result<TextSegment, Error> {
        self.check_alive()?;
        let tag = self.engine.text(TextTask { lun, ttt, text })?;
        match self.done(tag, "text response").await? {
            Done::Text {
                segment,
                continue_,
                final_bit,
                lun,
                ttt,
            } => Ok(TextSegment {
                segment,
                continue_,
                final_bit,
                lun,
                ttt,
            }),
            Done::Rejected(reason) => Err(CommandError::Rejected(reason).into()),
            _ => Err(PeerError::Unexpected {
                what: "answer to a text request",
            }
            .into()),
        }
    }

    /// Ends the session and waits until the target has closed the connection.
    pub async fn logout(mut self) -> Result<(), Error> {
        self.check_alive()?;
        let tag = self.engine.logout()?;
        match self.done(tag, "logout response").await? {
            Done::Logout(LogoutOutcome::Closed) => {}
            Done::Logout(outcome) => return Err(Error::LogoutRefused(outcome)),
            Done::Rejected(reason) => return Err(CommandError::Rejected(reason).into()),
            _ => {
                return Err(PeerError::Unexpected {
                    what: "answer to a logout",
                }
                .into());
            }
        }
        let timeout_ms = self.timeout_ms;
        let closed = timeout(Duration::from_millis(timeout_ms), self.pipe.closed()).await;
        closed.map_err(|_| Error::Timeout {
            waiting_for: "closing of the connection",
            timeout_ms,
        })??;
        Ok(())
    }

    /// Does nothing but read for a while: pings are answered, completions and notices kept.
    pub async fn idle(&mut self, time: Duration) -> Result<(), Error> {
        self.check_alive()?;
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            self.take_in()?;
            tokio::select! {
                () = &mut end => return Ok(()),
                turned = self.pipe.turn(&mut self.engine.outbox) => self.over_if_failed(turned)?,
            }
        }
    }

    /// What the target said on its own account since the last call, oldest first.
    pub fn notices(&mut self) -> Vec<Notice> {
        self.engine.notices.drain(..).collect()
    }

    /// Queues any bytes between PDUs, to see how a target takes them. The session does not count them: what comes of
    /// it is the caller's to judge.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.engine.outbox.raw(bytes);
    }

    async fn done(&mut self, tag: u32, waiting_for: &'static str) -> Result<Done, Error> {
        let done = self
            .wait_for(waiting_for, |engine| {
                let at = engine.done.iter().position(|(found, _)| *found == tag)?;
                engine.done.remove(at).map(|(_, done)| done)
            })
            .await;
        if done.is_err() {
            self.engine.abandon(tag);
        }
        done
    }

    /// Moves bytes until `ready` has something.
    async fn wait_for<T>(
        &mut self,
        waiting_for: &'static str,
        mut ready: impl FnMut(&mut Engine) -> Option<T>,
    ) -> Result<T, Error> {
        self.check_alive()?;
        let timeout_ms = self.timeout_ms;
        let work = async {
            loop {
                self.take_in()?;
                if let Some(value) = ready(&mut self.engine) {
                    return Ok(value);
                }
                let turned = self.pipe.turn(&mut self.engine.outbox).await;
                self.over_if_failed(turned)?;
            }
        };
        timeout(Duration::from_millis(timeout_ms), work)
            .await
            .unwrap_or(Err(Error::Timeout {
                waiting_for,
                timeout_ms,
            }))
    }

    /// Gives the engine what has been read.
    fn take_in(&mut self) -> Result<(), Error> {
        loop {
            let piece = match self.pipe.next() {
                Ok(Some(piece)) => self.engine.piece(piece),
                Ok(None) => return Ok(()),
                Err(error) => Err(error),
            };
            self.over_if_failed(piece.map_err(Error::from))?;
        }
    }

    fn over_if_failed(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        self.is_over |= result.is_err();
        result
    }

    fn check_alive(&self) -> Result<(), Error> {
        if self.is_over {
            Err(Error::Misuse("the session has ended"))
        } else {
            Ok(())
        }
    }
}

/// One Text Response.
#[derive(Debug)]
pub(crate) struct TextSegment {
    pub(crate) segment: Vec<u8>,
    pub(crate) continue_: bool,
    pub(crate) final_bit: bool,
    pub(crate) lun: Lun,
    pub(crate) ttt: u32,
}
