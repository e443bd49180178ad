//! Ports by the names that designators and TransportIDs carry (SAM-6 4.6, RFC 7143 §4.4.3).

/// A target port: for iSCSI a portal group of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetPort {
    target: Box<str>,
    tag: u16,
}

impl TargetPort {
    /// The portal group `tag` (never 0, which no port is; taken as 1) of the target called `target`.
    pub fn new(target: &str, tag: u16) -> Self {
        Self {
            target: target.into(),
            tag: tag.max(1),
        }
    }

    /// Name of the target device.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// RELATIVE TARGET PORT IDENTIFIER (SPC-5 4.3.4): the portal group tag.
    pub fn relative(&self) -> u16 {
        self.tag
    }

    /// SCSI port name: `iqn.…,t,0x0001` (RFC 7143 §4.4.3).
    pub fn name(&self) -> String {
        format!("{},t,{:#06x}", self.target, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_the_tag_in_four_digits() {
        let port = TargetPort::new("iqn.2026-11.example:disks", 0x1A);
        assert_eq!(port.name(), "iqn.2026-11.example:disks,t,0x001a");
        assert_eq!(TargetPort::new("iqn.a", 0).relative(), 1);
    }
}
