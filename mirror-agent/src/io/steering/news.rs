//! Enters: that other interfaces are attached to. Leaves: the same, not so often that targets are never done with being judged.

use std::time::{Duration, Instant};

use tokio::{
    sync::watch::{Receiver, error::RecvError},
    time::sleep_until,
};

/// Where pods come and go all the time, targets are judged anew no more often. A judgement takes 0.3 s, and 2 s where an address
/// does not answer: in between copies flow.
const PACE: Duration = Duration::from_secs(3);

/// A rest after each piece of news.
#[derive(Debug)]
pub(super) struct Rest {
    until: Instant,
}

impl Rest {
    /// The first is heard at once.
    pub(super) fn over() -> Self {
        Self { until: Instant::now() }
    }

    /// Waits for news. May be given up; then nothing is lost.
    pub(super) async fn changed(&mut self, news: &mut Receiver<()>) -> Result<(), RecvError> {
        sleep_until(self.until.into()).await;
        news.changed().await?;
        self.until = Instant::now() + PACE;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::watch, time::timeout};

    use super::*;

    #[tokio::test]
    async fn news_that_come_soon_after_others_are_heard_once_and_not_at_once() {
        let (sender, mut news) = watch::channel(());
        let mut rest = Rest::over();
        let soon = Duration::from_millis(50);
        assert!(timeout(soon, rest.changed(&mut news)).await.is_err(), "there is none");
        sender.send_replace(());
        let heard_at = Instant::now();
        timeout(soon, rest.changed(&mut news)).await.unwrap().unwrap();
        for _ in 0..2 {
            sender.send_replace(());
            assert!(timeout(soon, rest.changed(&mut news)).await.is_err(), "too soon");
        }
        rest.changed(&mut news).await.unwrap();
        assert!(heard_at.elapsed() >= PACE);
        assert!(timeout(soon, rest.changed(&mut news)).await.is_err(), "all of it is heard");
    }
}
