//! Login and text data segments: `key=value` lists and what the keys mean (RFC 7143 §6, §12, §13).
//!
//! [`TextCollector`] joins segments over the C bit, [`parse`] cuts them into [`Pair`]s, [`Key`] says what is known of a
//! name, [`value`](self) functions read values, and the `negotiate_*` methods of [`Key`] give the result of an offer.
//! What to answer, and when, is the target's and the initiator's own business.

mod binary;
mod collector;
mod error;
mod key;
mod negotiate;
mod pairs;
mod table;
mod value;

pub use binary::{emit_base64, emit_hex, parse_binary};
pub use collector::{CollectorLimits, TextCollector};
pub use error::{TextError, ValueError};
pub use key::{Key, KeySpec, Kind, NumberRule, Phase, Scope, Senders};
pub use negotiate::choose;
pub use pairs::{Duplicates, Pair, TextLimits, TextWriter, parse};
pub use value::{
    IRRELEVANT, MAX_SIMPLE_VALUE_BYTES, NO, NONE, NOT_UNDERSTOOD, REJECT, Special, YES, boolean, parse_boolean,
    parse_list, parse_number, parse_range, parse_simple,
};
