//! Login and text data segments: `key=value` lists and what the keys mean (RFC 7143 §6, §12, §13).
