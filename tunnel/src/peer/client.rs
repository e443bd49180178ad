//! The client's half of the hello.

use std::net::Ipv4Addr;

use bytes::BytesMut;

use super::pool::on_the_list;
use super::wire::{Message, Role};
use super::{HELLO_TIMEOUT_MS, HelloError, MTU_MIN, OFFERS_MAX, Pair, Refusal, Terms, capability};
use crate::filter::PORTAL_PORTS_MAX;

/// What the client's shell has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Terms are offered: look whether the pair is free here, then [`ClientHello::accept`] or [`ClientHello::taken`].
    Offered(Terms),
    /// The server is ready for frames.
    Ready(Terms),
}

#[derive(Debug)]
enum State {
    AwaitOffer,
    Deciding(Terms),
    AwaitReady(Terms),
    Over,
}

/// The client's state machine.
#[derive(Debug)]
pub struct ClientHello {
    state: State,
    mtu: u16,
    wished: Option<Pair>,
    offers: usize,
    deadline_ms: u64,
    output: BytesMut,
}

impl ClientHello {
    /// Starts the hello: the first output is ready. `mtu` is the largest packet to take, in bytes; `wished` a pair the
    /// server should try first; `now_ms` any clock in milliseconds that does not go back.
    pub fn new(mtu: u16, wished: Option<Pair>, now_ms: u64) -> Self {
        let mtu = mtu.max(MTU_MIN);
        let none = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        let wish = wished.map_or(none, |pair| (pair.server(), pair.client()));
        let mut output = BytesMut::new();
        Message::Hello {
            capabilities: capability::ALL,
            mtu,
            wished: wish,
        }
        .emit(Role::Client, &mut output);
        Self {
            state: State::AwaitOffer,
            mtu,
            wished,
            offers: 0,
            deadline_ms: now_ms + HELLO_TIMEOUT_MS,
            output,
        }
    }

    /// When the hello must be over, on the clock given at the start.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// What is to be sent now.
    pub fn take_output(&mut self) -> BytesMut {
        self.output.split()
    }

    /// Looks at what has been received; takes out whole messages only, so that frames behind the last one stay.
    ///
    /// # Errors
    /// Whatever ends the hello.
    pub fn receive(&mut self, input: &mut BytesMut, now_ms: u64) -> Result<Option<ClientEvent>, HelloError> {
        if now_ms >= self.deadline_ms {
            return Err(HelloError::TimedOut);
        }
        if matches!(self.state, State::Deciding(_) | State::Over) {
            return Ok(None);
        }
        let Some(message) = Message::take(Role::Server, input)? else {
            return Ok(None);
        };
        match (std::mem::replace(&mut self.state, State::Over), message) {
            (_, Message::Refused { refusal, text }) => Err(HelloError::Refused { refusal, text }),
            (
                State::AwaitOffer,
                Message::Offer {
                    capabilities,
                    mtu,
                    addresses,
                    portal_ports,
                },
            ) => {
                self.offers += 1;
                if self.offers > OFFERS_MAX {
                    return Err(HelloError::NoAddresses(OFFERS_MAX));
                }
                let terms = self.judge(capabilities, mtu, addresses, portal_ports)?;
                self.state = State::Deciding(terms.clone());
                Ok(Some(ClientEvent::Offered(terms)))
            }
            (State::AwaitReady(terms), Message::Ready) => Ok(Some(ClientEvent::Ready(terms))),
            (State::AwaitReady(_), other) => Err(HelloError::Unexpected {
                got: other.name(),
                expected: "\"ready\"",
            }),
            (_, other) => Err(HelloError::Unexpected {
                got: other.name(),
                expected: "an offer",
            }),
        }
    }

    fn judge(
        &self,
        capabilities: u32,
        mtu: u16,
        (server, client): (Ipv4Addr, Ipv4Addr),
        portal_ports: Vec<u16>,
    ) -> Result<Terms, HelloError> {
        let capabilities = capabilities & capability::ALL;
        if capabilities & capability::IPV4 == 0 {
            return Err(HelloError::NothingInCommon);
        }
        if mtu < MTU_MIN || mtu > self.mtu {
            return Err(HelloError::BadOffer("a packet size that this end did not agree to"));
        }
        if portal_ports.is_empty() || portal_ports.len() > PORTAL_PORTS_MAX || portal_ports.contains(&0) {
            return Err(HelloError::BadOffer("no usable list of portal ports"));
        }
        let pair = Pair::new(server, client).ok_or(HelloError::BadOffer(
            "addresses that are not two different private ones",
        ))?;
        if self.wished != Some(pair) && !on_the_list(pair) {
            return Err(HelloError::BadOffer(
                "addresses that are neither on the list nor wished for",
            ));
        }
        Ok(Terms {
            pair,
            mtu,
            portal_ports,
            capabilities,
        })
    }

    /// The offered pair is free here and the device is up.
    pub fn accept(&mut self) {
        if let State::Deciding(terms) = std::mem::replace(&mut self.state, State::Over) {
            Message::Answer { accepted: true }.emit(Role::Client, &mut self.output);
            self.state = State::AwaitReady(terms);
        }
    }

    /// The offered pair is in use here; another offer is awaited.
    pub fn taken(&mut self) {
        if let State::Deciding(_) = std::mem::replace(&mut self.state, State::Over) {
            Message::Answer { accepted: false }.emit(Role::Client, &mut self.output);
            self.state = State::AwaitOffer;
        }
    }

    /// Ends the hello with a reason for the other end.
    pub fn refuse(&mut self, refusal: Refusal, text: &str) {
        self.state = State::Over;
        Message::Refused {
            refusal,
            text: text.to_owned(),
        }
        .emit(Role::Client, &mut self.output);
    }
}
