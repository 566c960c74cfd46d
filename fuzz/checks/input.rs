//! Draws decisions from the bytes of an input, front to back.
//!
//! Where the input ends, every answer is zero: a short input is a short story, and cutting one off
//! leaves a sensible one. Nothing is ever skipped to align, so a fuzzer that changes one byte
//! changes one decision.

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of it.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// The next byte, or zero.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two bytes as a number below `limit`.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
        number % limit
    }

    /// As many bytes as the next one says, fewer at the end.
    pub fn short_bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
