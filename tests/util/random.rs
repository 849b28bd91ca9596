//! Chance that can be repeated, and how much of it there is to be.

/// The variable that gives a test the seed that it has shown before.
const SEED: &str = "HOLDFAST_TEST_SEED";
/// The variable that has what is repeated be repeated so many times as often.
const ENDURANCE: &str = "HOLDFAST_TEST_ENDURANCE";

/// How many times as often as usual faults are repeated.
pub(crate) fn endurance() -> u32 {
    match std::env::var(ENDURANCE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{ENDURANCE} is a number")),
        Err(_) => 1,
    }
}

/// Numbers by chance, the same ones for the same seed (SplitMix64). What a test chooses by them is repeated, not what the
/// processes make of it.
pub(crate) struct Random(u64);

impl Random {
    /// A new seed, or the one that was asked for; a test that fails shows it.
    pub(crate) fn new() -> Self {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED} is a number")),
            Err(_) => getrandom::u64().unwrap(),
        };
        println!("{SEED}={seed} has this test choose the same again");
        Self(seed)
    }

    /// Numbers of somebody's own, so that it does not matter who is first.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether it is one of so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
