//! known_hosts lines against keys.
