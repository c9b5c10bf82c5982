//! Fuzz input as decisions. When it has run out, every decision is zero.

/// The rest of an input.
#[derive(Clone, Debug)]
pub struct Feed<'i>(&'i [u8]);

impl<'i> Feed<'i> {
    /// All of it.
    pub fn new(input: &'i [u8]) -> Self {
        Self(input)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A place below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        let word = if end > 256 { usize::from(self.word()) } else { usize::from(self.byte()) };
        word % end.max(1)
    }

    /// The next bytes: as many as the byte before them says, if there are so many.
    pub fn bytes(&mut self) -> &'i [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }
}
