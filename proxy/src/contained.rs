//! A panic ends what it happened in, and nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

pin_project_lite::pin_project! {
    /// Work that ends where it panics.
    pub(crate) struct Contained<F, P> {
        #[pin]
        work: F,
        panicked: P,
    }
}

/// Has `panicked` told of the work's panic, by its message.
pub(crate) fn contained<F, P>(work: F, panicked: P) -> Contained<F, P>
where
    F: Future<Output = ()>,
    P: FnMut(&str),
{
    Contained { work, panicked }
}

/// Polls what may panic; with the message where it does.
///
/// Whoever calls it gives the work up then, so that nobody sees what state it is in.
pub(crate) fn poll<F: Future>(
    work: Pin<&mut F>,
    context: &mut Context<'_>,
) -> Result<Poll<F::Output>, String> {
    catch_unwind(AssertUnwindSafe(|| work.poll(context))).map_err(|payload| message(&*payload))
}

impl<F, P> Future for Contained<F, P>
where
    F: Future<Output = ()>,
    P: FnMut(&str),
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        poll(this.work, context).unwrap_or_else(|message| {
            (this.panicked)(&message);
            Poll::Ready(())
        })
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
