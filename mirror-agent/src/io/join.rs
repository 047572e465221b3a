//! Enters: things to be waited for. Leaves: what all of them gave.

use std::{future::poll_fn, pin::Pin, task::Poll};

/// Waits for all of `futures` at once, as part of the task that waits: let go, it leaves nothing behind. The results have
/// their order.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut open: Vec<Slot<F>> = futures.into_iter().map(|future| Slot::Open(Box::pin(future))).collect();
    poll_fn(|cx| {
        let mut is_done = true;
        for slot in &mut open {
            if let Slot::Open(future) = slot {
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => *slot = Slot::Done(output),
                    Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    open.into_iter()
        .filter_map(|slot| match slot {
            Slot::Done(output) => Some(output),
            Slot::Open(_) => None,
        })
        .collect()
}

enum Slot<F: Future> {
    Open(Pin<Box<F>>),
    Done(F::Output),
}

impl<F: Future> Unpin for Slot<F> {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test]
    async fn all_are_waited_for_at_once_and_keep_their_order() {
        let start = Instant::now();
        let outputs = join_all([30, 10, 20].map(|millis| async move {
            sleep(Duration::from_millis(millis)).await;
            millis
        }));
        assert_eq!(outputs.await, [30, 10, 20]);
        assert!(start.elapsed() < Duration::from_millis(60));
        assert!(join_all(Vec::<std::future::Ready<()>>::new()).await.is_empty());
    }
}
