//! Elections: once the network is well, ballots are few.
//!
//! This is statistics: no protocol can promise progress (Fischer, Lynch, Paterson 1985), and a
//! bound for one seed would only forbid bad luck. The distribution over all seeds is judged at the
//! end of a run; a bound that no sound cluster comes near catches a duel that does not end.

use super::violated;

/// Ballots after healing that a single history may need: dozens of times the median.
const CAMPAIGNS_MAX: u64 = 60;

/// See the module's documentation.
#[derive(Default)]
pub struct Elections {
    campaigns: u64,
    before_healing: u64,
}

impl Elections {
    /// Somebody started phase 1.
    pub fn campaigning(&mut self) {
        self.campaigns += 1;
    }

    /// How often anybody started phase 1.
    pub fn campaigns(&self) -> u64 {
        self.campaigns
    }

    /// All faults end now.
    pub fn healed(&mut self) {
        self.before_healing = self.campaigns;
    }

    /// The cluster works again. Answers how many ballots it took.
    pub fn settled(&self) -> u64 {
        let campaigns = self.campaigns - self.before_healing;
        if campaigns > CAMPAIGNS_MAX {
            violated("elections", &format!("{campaigns} ballots after everything was healed"));
        }
        campaigns
    }
}
