//! Polling what wakes itself: hyper's connection does, with every request that has a body. A task
//! that is woken in its own turn goes to the end of the queue, and another thread is woken to take
//! it from there. Here it is polled again at once.
//!
//! ```text
//!              woken meanwhile (a few times)
//!               ┌───────────┐
//!               ▼           │
//!   woken ─▶ polled ────────┴─▶ pending ─(woken)─▶ the task is woken
//! ```

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls of one turn. Who wants more lets others come first.
const POLLS: usize = 8;

/// Polls something, and polls it again when it was woken meanwhile.
pub(super) struct Turn {
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Default)]
struct Bell {
    polling: AtomicBool,
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        // Who polls looks at the bell after it has said that it polls no more.
        if !self.polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Turn {
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell::default());
        let waker = bell.clone().into();
        Self { bell, waker }
    }

    pub(super) fn poll<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.bell.task.register(cx.waker());
        for _ in 0..POLLS {
            self.bell.polling.store(true, Ordering::SeqCst);
            // Taken, not only wiped: what was published before the bell rang is seen by the poll.
            self.bell.rung.swap(false, Ordering::SeqCst);
            let polled = poll(&mut Context::from_waker(&self.waker));
            self.bell.polling.store(false, Ordering::SeqCst);
            if polled.is_ready() || !self.bell.rung.load(Ordering::SeqCst) {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_wakes_itself_is_polled_again_and_wakes_nobody() {
        let (turn, count) = (Turn::new(), Arc::new(Count::default()));
        let waker = count.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut polls = 0;
        let polled = turn.poll(&mut cx, |cx| {
            polls += 1;
            if polls < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(polls)
        });
        assert_eq!((polled, count.0.load(Ordering::SeqCst)), (Poll::Ready(3), 0));
    }

    #[test]
    fn who_is_woken_later_or_without_end_wakes_the_task() {
        let (turn, count) = (Turn::new(), Arc::new(Count::default()));
        let waker = count.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut kept = None;
        let pending: Poll<()> = turn.poll(&mut cx, |cx| {
            kept = Some(cx.waker().clone());
            Poll::Pending
        });
        assert!(pending.is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        kept.unwrap().wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);

        let mut polls = 0;
        let pending: Poll<()> = turn.poll(&mut cx, |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert!(pending.is_pending());
        assert_eq!((polls, count.0.load(Ordering::SeqCst)), (POLLS, 2));
    }

    #[test]
    fn no_wake_of_another_thread_is_lost() {
        for _ in 0..300 {
            let (turn, said) = (Turn::new(), Arc::new(AtomicBool::new(false)));
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            runtime.block_on(async {
                let mut other = None;
                std::future::poll_fn(|cx| {
                    turn.poll(cx, |cx| {
                        if said.load(Ordering::SeqCst) {
                            return Poll::Ready(());
                        }
                        other.get_or_insert_with(|| {
                            let (said, waker) = (said.clone(), cx.waker().clone());
                            std::thread::spawn(move || {
                                said.store(true, Ordering::SeqCst);
                                waker.wake();
                            })
                        });
                        Poll::Pending
                    })
                })
                .await;
                other.unwrap().join().unwrap();
            });
        }
    }
}
