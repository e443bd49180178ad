//! A small iSCSI initiator on the same codec as the target: what the probe command and the tests use.
