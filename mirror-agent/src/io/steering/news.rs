//! Enters: that other interfaces are attached to. Leaves: the same, not so often that targets are never done with being judged.

use std::time::{Duration, Instant};

use tokio::{
    sync::watch::{Receiver, error::RecvError},
    time::sleep_until,
};

/// Where pods come and go all the time, targets are judged anew no more often. A judgement takes 0.3 s, and 2 s where an address
/// does not answer: in between copies flow.
const PACE: Duration = Duration::from_secs(3);

/// As many are heard at once: where an interface changes what it is, some come together.
const AT_ONCE: u32 = 4;

/// When news are heard.
#[derive(Debug)]
pub(super) struct Rest {
    /// When the last would have been heard, had all of them come at this pace.
    owed_until: Instant,
}

impl Rest {
    /// None has been heard for long.
    pub(super) fn over() -> Self {
        Self { owed_until: Instant::now() }
    }

    /// Waits for news. May be given up; then nothing is lost.
    pub(super) async fn changed(&mut self, news: &mut Receiver<()>) -> Result<(), RecvError> {
        let ahead = PACE * (AT_ONCE - 1);
        sleep_until((self.owed_until.checked_sub(ahead).unwrap_or(self.owed_until)).into()).await;
        news.changed().await?;
        self.owed_until = self.owed_until.max(Instant::now()) + PACE;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::watch, time::timeout};

    use super::*;

    #[tokio::test]
    async fn news_that_come_one_after_the_other_are_heard_at_a_pace() {
        let (sender, mut news) = watch::channel(());
        let mut rest = Rest::over();
        let soon = Duration::from_millis(50);
        assert!(timeout(soon, rest.changed(&mut news)).await.is_err(), "there is none");
        let heard_at = Instant::now();
        for _ in 0..AT_ONCE {
            sender.send_replace(());
            timeout(soon, rest.changed(&mut news)).await.unwrap().unwrap();
        }
        for _ in 0..2 {
            sender.send_replace(());
            assert!(timeout(soon, rest.changed(&mut news)).await.is_err(), "too soon");
        }
        rest.changed(&mut news).await.unwrap();
        assert!(heard_at.elapsed() >= PACE);
        assert!(timeout(soon, rest.changed(&mut news)).await.is_err(), "all of it is heard");
    }
}
