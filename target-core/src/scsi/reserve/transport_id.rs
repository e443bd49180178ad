//! TransportIDs of iSCSI initiators (SPC-5 7.6.4.6).

/// PROTOCOL IDENTIFIER of iSCSI.
const ISCSI: u8 = 0x05;
/// TPID FORMAT 01b, in its place in byte 0: the name of a port.
const PORT_FORMAT: u8 = 0x40;
/// Between the name of the initiator and its ISID.
const SEPARATOR: &str = ",i,0x";
/// Least ADDITIONAL LENGTH in bytes.
const MIN_NAME_BYTES: usize = 20;
/// Greatest, in bytes: a name of 223 bytes (RFC 7143 §4.2.7.1), separator, ISID and the padding.
const MAX_NAME_BYTES: usize = 244;
/// Hex digits of an ISID.
const ISID_DIGITS: usize = 12;

/// Whom a TransportID names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Initiator {
    /// All ports of the initiator with this name that are known.
    AllPorts(String),
    /// The port with this name.
    Port(String),
}

/// The TransportID of an initiator port, with the ISID where the name has one.
pub(super) fn emit(port: &str) -> Vec<u8> {
    let format = if port.contains(SEPARATOR) { PORT_FORMAT } else { 0x00 };
    let mut name = port.as_bytes().to_vec();
    name.push(0);
    name.resize(name.len().next_multiple_of(4).max(MIN_NAME_BYTES), 0);
    let mut id = vec![format | ISCSI, 0];
    id.extend_from_slice(&(name.len() as u16).to_be_bytes());
    id.extend_from_slice(&name);
    id
}

/// The TransportID that `bytes` begin with, and its length. `Err` is the offset of what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Initiator, usize), usize> {
    let &[first, _, high, low, ref rest @ ..] = bytes else {
        return Err(0);
    };
    if first & 0x3F != ISCSI {
        return Err(0);
    }
    let name_bytes = usize::from(u16::from_be_bytes([high, low]));
    if !(MIN_NAME_BYTES..=MAX_NAME_BYTES).contains(&name_bytes) || name_bytes % 4 != 0 {
        return Err(2);
    }
    let field = rest.get(..name_bytes).ok_or(2_usize)?;
    let end = field.iter().position(|&byte| byte == 0).ok_or(4_usize)?;
    let name = std::str::from_utf8(&field[..end]).map_err(|_| 4_usize)?;
    if name.is_empty() || field[end..].iter().any(|&byte| byte != 0) {
        return Err(4);
    }
    // Names are compared in lower case (RFC 7143 §4.2.7.1).
    let name = name.to_ascii_lowercase();
    let initiator = match first >> 6 {
        0b00 if !name.contains(SEPARATOR) => Initiator::AllPorts(name),
        0b01 => Initiator::Port(normal_port(&name).ok_or(4_usize)?),
        0b00 => return Err(4),
        _ => return Err(0),
    };
    Ok((initiator, 4 + name_bytes))
}

/// The name of a port with all twelve digits of its ISID.
fn normal_port(name: &str) -> Option<String> {
    let (initiator, isid) = name.split_once(SEPARATOR)?;
    let digits = !isid.is_empty() && isid.len() <= ISID_DIGITS && isid.bytes().all(|digit| digit.is_ascii_hexdigit());
    (digits && !initiator.is_empty()).then(|| format!("{initiator}{SEPARATOR}{isid:0>ISID_DIGITS$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "iqn.2026-11.example:home,i,0x00023d000001";

    #[test]
    fn what_is_emitted_is_understood() {
        let id = emit(PORT);
        assert_eq!(id[..4], [0x45, 0, 0, 44]);
        assert_eq!(parse(&id), Ok((Initiator::Port(PORT.to_owned()), 48)));
        let id = emit("iqn.a");
        assert_eq!(id[..4], [0x05, 0, 0, 20]);
        assert_eq!(parse(&id), Ok((Initiator::AllPorts("iqn.a".to_owned()), 24)));
    }

    #[test]
    fn names_come_in_their_normal_form() {
        assert_eq!(
            parse(&emit("IQN.2026-11.Example:Home,i,0x23D000001")),
            Ok((Initiator::Port(PORT.to_owned()), 44))
        );
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let good = emit(PORT);
        let with = |at: usize, byte: u8| {
            let mut id = good.clone();
            id[at] = byte;
            id
        };
        for (what, id, at) in [
            ("nothing", vec![], 0),
            ("another protocol", with(0, 0x46), 0),
            ("an unknown format", with(0, 0x85), 0),
            (
                "a name without ISID as a port",
                [&[0x45][..], &emit("iqn.a")[1..]].concat(),
                4,
            ),
            ("a port as a name", with(0, 0x05), 4),
            ("a length that is not of fours", with(3, 43), 2),
            ("a length beyond the end", with(3, 48), 2),
            ("a length that is too short", with(3, 16), 2),
            ("no zero at the end", [&[5, 0, 0, 20][..], &[b'x'; 20]].concat(), 4),
            ("something behind the zero", with(47, 1), 4),
            (
                "an ISID that is no number",
                emit("iqn.2026-11.example:home,i,0x00023d00000g"),
                4,
            ),
            (
                "an ISID that is too long",
                emit("iqn.2026-11.example:home,i,0x00023d0000011"),
                4,
            ),
        ] {
            assert_eq!(parse(&id), Err(at), "{what}");
        }
    }
}
