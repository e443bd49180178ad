//! Joins the segments of a text that the C bit spreads over several PDUs (RFC 7143 §6.2, §11.10.2).

use crate::text::TextError;

/// What is taken from one exchange.
#[derive(Clone, Copy, Debug)]
pub struct CollectorLimits {
    /// All segments together, in bytes.
    pub max_bytes: usize,
    /// Number of segments, so that empty ones with C set do not go on for ever.
    pub max_segments: usize,
}

/// Gathers one text at a time.
#[derive(Debug)]
pub struct TextCollector {
    limits: CollectorLimits,
    bytes: Vec<u8>,
    segments: usize,
}

impl TextCollector {
    /// An empty collector.
    #[must_use]
    pub fn new(limits: CollectorLimits) -> TextCollector {
        TextCollector {
            limits,
            bytes: Vec::new(),
            segments: 0,
        }
    }

    /// Adds a PDU's data segment; `continue_` is its C bit. Yields the whole text after the segment without it, and
    /// is empty again then and after an error.
    pub fn feed(&mut self, segment: &[u8], continue_: bool) -> Result<Option<Vec<u8>>, TextError> {
        let CollectorLimits {
            max_bytes,
            max_segments,
        } = self.limits;
        self.segments += 1;
        let error = if self.bytes.len() + segment.len() > max_bytes {
            Some(TextError::TooLong { max_bytes })
        } else if self.segments > max_segments {
            Some(TextError::TooManySegments { max_segments })
        } else {
            None
        };
        if let Some(error) = error {
            self.clear();
            return Err(error);
        }
        self.bytes.extend_from_slice(segment);
        if continue_ {
            return Ok(None);
        }
        self.segments = 0;
        Ok(Some(std::mem::take(&mut self.bytes)))
    }

    /// Whether a text has begun and not ended.
    #[must_use]
    pub fn in_progress(&self) -> bool {
        self.segments > 0
    }

    /// Forgets what has been gathered.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
        self.segments = 0;
    }
}
