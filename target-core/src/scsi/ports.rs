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

/// An I_T nexus by the names of its two ports: what registrations belong to, whoever is logged in (SPC-5 5.13.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NexusName {
    /// Name of the initiator port, for iSCSI `iqn.…,i,0x` and the ISID in twelve hex digits (RFC 7143 §4.4.3).
    pub(super) initiator_port: Box<str>,
    pub(super) target_port: TargetPort,
}

impl NexusName {
    pub(super) fn new(initiator_port: &str, target_port: TargetPort) -> Self {
        Self {
            initiator_port: initiator_port.into(),
            target_port,
        }
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
