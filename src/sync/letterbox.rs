use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Holds one letter from one thread for another one, which waits for it.
#[derive(Debug)]
pub struct Letterbox<T> {
    letter: Mutex<Option<T>>,
    arrived: Condvar,
}

impl<T> Default for Letterbox<T> {
    fn default() -> Self {
        Self { letter: Mutex::new(None), arrived: Condvar::new() }
    }
}

impl<T> Letterbox<T> {
    /// Leaves a letter.
    pub fn put(&self, letter: T) {
        *self.letter.lock() = Some(letter);
        self.arrived.notify_one();
    }

    /// Waits for the letter, however long.
    pub fn take(&self) -> T {
        let mut letter = self.letter.lock();
        loop {
            if let Some(letter) = letter.take() {
                return letter;
            }
            self.arrived.wait(&mut letter);
        }
    }

    /// Waits for the letter as long as that, or a little less.
    pub fn take_for(&self, timeout: Duration) -> Option<T> {
        let mut letter = self.letter.lock();
        if letter.is_none() {
            self.arrived.wait_for(&mut letter, timeout);
        }
        letter.take()
    }
}
