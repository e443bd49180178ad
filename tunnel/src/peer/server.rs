//! The server's half of the hello.

use bytes::BytesMut;

use super::wire::{Message, Role};
use super::{HELLO_TIMEOUT_MS, HelloError, MTU_MIN, OFFERS_MAX, Pair, Refusal, Terms, VERSION, capability};

/// What the server's shell has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// A pair is wanted: [`ServerHello::offer`] one that is free here, or [`ServerHello::refuse`].
    Wanted {
        /// What the client would like; it has no right to it.
        wished: Option<Pair>,
    },
    /// The client has accepted: bring up the device, then [`ServerHello::ready`] or [`ServerHello::refuse`].
    Accepted(Terms),
}

#[derive(Debug)]
enum State {
    AwaitHello,
    Choosing,
    AwaitAnswer(Terms),
    BringingUp,
    Over,
}

/// The server's state machine.
#[derive(Debug)]
pub struct ServerHello {
    state: State,
    mtu: u16,
    portal_ports: Vec<u16>,
    capabilities: u32,
    offers: usize,
    deadline_ms: u64,
    output: BytesMut,
}

impl ServerHello {
    /// Waits for a client. `mtu` is the largest packet to agree to, in bytes; `now_ms` any clock in milliseconds that
    /// does not go back.
    pub fn new(mtu: u16, portal_ports: Vec<u16>, now_ms: u64) -> Self {
        Self {
            state: State::AwaitHello,
            mtu: mtu.max(MTU_MIN),
            portal_ports,
            capabilities: 0,
            offers: 0,
            deadline_ms: now_ms + HELLO_TIMEOUT_MS,
            output: BytesMut::new(),
        }
    }

    /// When the hello must be over, on the clock given at the start.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// What is to be sent now; after an error too, when the client is to be told.
    pub fn take_output(&mut self) -> BytesMut {
        self.output.split()
    }

    /// Looks at what has been received; takes out whole messages only, so that frames behind the last one stay.
    ///
    /// # Errors
    /// Whatever ends the hello; a last word for the client may be in the output.
    pub fn receive(&mut self, input: &mut BytesMut, now_ms: u64) -> Result<Option<ServerEvent>, HelloError> {
        match self.step(input, now_ms) {
            Err(error) => {
                self.say_why(&error);
                Err(error)
            }
            event => event,
        }
    }

    fn step(&mut self, input: &mut BytesMut, now_ms: u64) -> Result<Option<ServerEvent>, HelloError> {
        if now_ms >= self.deadline_ms {
            return Err(HelloError::TimedOut);
        }
        if !matches!(self.state, State::AwaitHello | State::AwaitAnswer(_)) {
            return Ok(None);
        }
        let Some(message) = Message::take(Role::Client, input)? else {
            return Ok(None);
        };
        match (std::mem::replace(&mut self.state, State::Over), message) {
            (_, Message::Refused { refusal, text }) => Err(HelloError::Refused { refusal, text }),
            (
                State::AwaitHello,
                Message::Hello {
                    capabilities,
                    mtu,
                    wished: (server, client),
                },
            ) => {
                self.capabilities = capabilities & capability::ALL;
                if self.capabilities & capability::IPV4 == 0 {
                    return Err(HelloError::NothingInCommon);
                }
                if mtu < MTU_MIN {
                    return Err(HelloError::BadOffer("a packet size below what every host must take"));
                }
                self.mtu = self.mtu.min(mtu);
                self.state = State::Choosing;
                Ok(Some(ServerEvent::Wanted {
                    wished: Pair::new(server, client),
                }))
            }
            (State::AwaitAnswer(terms), Message::Answer { accepted: true }) => {
                self.state = State::BringingUp;
                Ok(Some(ServerEvent::Accepted(terms)))
            }
            (State::AwaitAnswer(_), Message::Answer { accepted: false }) => {
                if self.offers >= OFFERS_MAX {
                    return Err(HelloError::NoAddresses(self.offers));
                }
                self.state = State::Choosing;
                Ok(Some(ServerEvent::Wanted { wished: None }))
            }
            (State::AwaitAnswer(_), other) => Err(HelloError::Unexpected {
                got: other.name(),
                expected: "an answer",
            }),
            (_, other) => Err(HelloError::Unexpected {
                got: other.name(),
                expected: "a hello",
            }),
        }
    }

    /// Tells the client what went wrong, but not one that does not speak our language or has said the last word.
    fn say_why(&mut self, error: &HelloError) {
        let refusal = match error {
            HelloError::NotFarlun | HelloError::Refused { .. } | HelloError::HungUp => {
                self.state = State::Over;
                return;
            }
            HelloError::Version { theirs, .. } => {
                let text = format!("this server speaks version {VERSION} of the tunnel protocol, the client {theirs}");
                return self.refuse(Refusal::Version, &text);
            }
            HelloError::NoAddresses(_) => Refusal::NoAddresses,
            _ => Refusal::BadHello,
        };
        self.refuse(refusal, &error.to_string());
    }

    /// Offers a pair that is free here.
    pub fn offer(&mut self, pair: Pair) {
        if !matches!(self.state, State::Choosing) {
            return;
        }
        self.offers += 1;
        let terms = Terms {
            pair,
            mtu: self.mtu,
            portal_ports: self.portal_ports.clone(),
            capabilities: self.capabilities,
        };
        let offer = Message::Offer {
            capabilities: capability::ALL,
            mtu: self.mtu,
            addresses: (pair.server(), pair.client()),
            portal_ports: self.portal_ports.clone(),
        };
        offer.emit(Role::Server, &mut self.output);
        self.state = State::AwaitAnswer(terms);
    }

    /// The device is up: frames may follow.
    pub fn ready(&mut self) {
        if matches!(self.state, State::BringingUp) {
            self.state = State::Over;
            Message::Ready.emit(Role::Server, &mut self.output);
        }
    }

    /// Ends the hello with a reason for the client.
    pub fn refuse(&mut self, refusal: Refusal, text: &str) {
        self.state = State::Over;
        Message::Refused {
            refusal,
            text: text.to_owned(),
        }
        .emit(Role::Server, &mut self.output);
    }
}
