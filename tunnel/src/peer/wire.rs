//! The hello's messages as bytes: one gate in, one out.
//!
//! ```text
//! "FARLUNTN"  version u16  kind u8  role u8  length u16  body
//! ```
//! Integers are in network order. Bytes at the end of a body that this version does not know are left alone.
//! The layout of the header and of `refused` is the same in all versions.

use std::net::Ipv4Addr;

use bytes::{Buf, BufMut, BytesMut};
use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::map;
use nom::multi::{length_count, length_data};
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::{HelloError, Refusal, VERSION};
use crate::filter::PORTAL_PORTS_MAX;

/// What every message starts with.
pub const MAGIC: [u8; 8] = *b"FARLUNTN";
/// Magic, version, kind, role and length, in bytes.
pub const HEADER_BYTES: usize = 14;
/// The longest body, in bytes.
pub const BODY_MAX_BYTES: usize = 512;
/// The longest reason in a refusal, in bytes.
pub const REASON_MAX_BYTES: usize = 200;

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The end that connects.
    Client = 1,
    /// The end with the portals.
    Server = 2,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The client's first word.
    Hello {
        /// See [`super::capability`].
        capabilities: u32,
        /// The largest packet the client takes, in bytes.
        mtu: u16,
        /// Server's and client's address that the client would like, all zero when it does not care.
        wished: (Ipv4Addr, Ipv4Addr),
    },
    /// The server offers terms.
    Offer {
        /// See [`super::capability`].
        capabilities: u32,
        /// The largest packet to be sent on this link, in bytes.
        mtu: u16,
        /// Server's and client's address.
        addresses: (Ipv4Addr, Ipv4Addr),
        /// The portals' TCP ports.
        portal_ports: Vec<u16>,
    },
    /// The client's answer to an offer.
    Answer {
        /// Whether the pair is taken, or else in use on the client.
        accepted: bool,
    },
    /// Either end's last word.
    Refused {
        /// For programs.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// The server's device is up; frames follow.
    Ready,
}

impl Message {
    /// What the message is called in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "a hello",
            Self::Offer { .. } => "an offer",
            Self::Answer { .. } => "an answer",
            Self::Refused { .. } => "a refusal",
            Self::Ready => "\"ready\"",
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Offer { .. } => 2,
            Self::Answer { .. } => 3,
            Self::Refused { .. } => 4,
            Self::Ready => 5,
        }
    }

    /// Appends the message.
    pub fn emit(&self, role: Role, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        match self {
            Self::Hello {
                capabilities,
                mtu,
                wished,
            } => {
                body.put_u32(*capabilities);
                body.put_u16(*mtu);
                put_addresses(&mut body, *wished);
            }
            Self::Offer {
                capabilities,
                mtu,
                addresses,
                portal_ports,
            } => {
                body.put_u32(*capabilities);
                body.put_u16(*mtu);
                put_addresses(&mut body, *addresses);
                let ports = &portal_ports[..portal_ports.len().min(PORTAL_PORTS_MAX)];
                body.put_u8(ports.len() as u8);
                ports.iter().for_each(|port| body.put_u16(*port));
            }
            Self::Answer { accepted } => body.put_u8(u8::from(*accepted)),
            Self::Refused { refusal, text } => {
                let text = printable(text);
                body.put_u8(*refusal as u8);
                body.put_u8(text.len() as u8);
                body.put_slice(text.as_bytes());
            }
            Self::Ready => {}
        }
        out.put_slice(&MAGIC);
        out.put_u16(VERSION);
        out.put_u8(self.kind());
        out.put_u8(role as u8);
        out.put_u16(body.len() as u16);
        out.put_slice(&body);
    }

    /// Takes the next whole message of the other end, whose role must be `from`, out of `input`; `None` when more
    /// bytes are needed. What is wrong is said as soon as it is seen.
    ///
    /// # Errors
    /// When the bytes are no message of this version.
    pub fn take(from: Role, input: &mut BytesMut) -> Result<Option<Self>, HelloError> {
        let seen = input.len().min(MAGIC.len());
        if input[..seen] != MAGIC[..seen] {
            return Err(HelloError::NotFarlun);
        }
        let Some(header) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let version = u16::from_be_bytes([header[8], header[9]]);
        let (kind, role) = (header[10], header[11]);
        let length = usize::from(u16::from_be_bytes([header[12], header[13]]));
        if version != VERSION && kind != 4 {
            return Err(HelloError::Version {
                ours: VERSION,
                theirs: version,
            });
        }
        if length > BODY_MAX_BYTES {
            return Err(HelloError::TooLong { length });
        }
        if role != from as u8 {
            return Err(HelloError::Malformed(
                "message: it claims to be the same end of the tunnel",
            ));
        }
        let Some(body) = input.get(HEADER_BYTES..HEADER_BYTES + length) else {
            return Ok(None);
        };
        let message = parse_body(kind, body)?;
        input.advance(HEADER_BYTES + length);
        Ok(Some(message))
    }
}

fn put_addresses(body: &mut BytesMut, (server, client): (Ipv4Addr, Ipv4Addr)) {
    body.put_slice(&server.octets());
    body.put_slice(&client.octets());
}

fn address(input: &[u8]) -> IResult<&[u8], Ipv4Addr> {
    map(be_u32, Ipv4Addr::from).parse(input)
}

fn parse_body(kind: u8, body: &[u8]) -> Result<Message, HelloError> {
    match kind {
        1 => {
            let parsed: IResult<&[u8], _> = (be_u32, be_u16, address, address).parse(body);
            let (_, (capabilities, mtu, server, client)) = parsed.map_err(|_| HelloError::Malformed("hello"))?;
            Ok(Message::Hello {
                capabilities,
                mtu,
                wished: (server, client),
            })
        }
        2 => {
            let ports = length_count(be_u8, be_u16);
            let parsed: IResult<&[u8], _> = (be_u32, be_u16, address, address, ports).parse(body);
            let (_, (capabilities, mtu, server, client, portal_ports)) =
                parsed.map_err(|_| HelloError::Malformed("offer"))?;
            Ok(Message::Offer {
                capabilities,
                mtu,
                addresses: (server, client),
                portal_ports,
            })
        }
        3 => {
            let parsed: IResult<&[u8], &[u8]> = take(1usize).parse(body);
            match parsed {
                Ok((_, [0])) => Ok(Message::Answer { accepted: false }),
                Ok((_, [1])) => Ok(Message::Answer { accepted: true }),
                _ => Err(HelloError::Malformed("answer")),
            }
        }
        4 => {
            let parsed: IResult<&[u8], _> = (be_u8, length_data(be_u8)).parse(body);
            let (_, (code, text)) = parsed.map_err(|_| HelloError::Malformed("refusal"))?;
            Ok(Message::Refused {
                refusal: Refusal::from(code),
                text: printable(&String::from_utf8_lossy(text)),
            })
        }
        5 => Ok(Message::Ready),
        _ => Err(HelloError::Malformed("message: its kind is unknown")),
    }
}

/// A text of the other end that is safe to print: no control characters, nothing that turns the direction of
/// writing, [`REASON_MAX_BYTES`] at most.
pub fn printable(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        let hidden =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        let c = if c.is_control() || hidden { '?' } else { c };
        if safe.len() + c.len_utf8() > REASON_MAX_BYTES {
            break;
        }
        safe.push(c);
    }
    safe
}
