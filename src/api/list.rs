//! Lists of keys: page by page out of one unchanging view, so that a list of any length takes
//! little memory and shows the store as it was at one revision.

use super::access::Access;
use super::backend::{Backend, Reads};
use super::execute::{Executor, failure};
use super::send;
use crate::transport::session::{Gone, Output};
use crate::wire::answer::{Page, Record, write_record, write_row};
use crate::wire::failure::Failure;
use crate::wire::request::{Format, Verb};
use crate::wire::store_call::{Found, LISTED_MAX};
use bytes::Bytes;
use std::time::Instant;

/// Keys taken from the view at a time: some tens of kilobytes with values of usual size. Another
/// node's view gives no more at once.
const PAGE_KEYS: usize = LISTED_MAX;

/// Bytes of keys and values in one answer that is not streamed; the list says that there is more.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Bytes of rendered output that are sent at once.
const OUTPUT_BYTES: usize = 64 << 10;

/// A list being read.
pub(super) struct Listing<'a, V> {
    view: V,
    access: &'a Access,
    prefix: Bytes,
    after: Option<Bytes>,
    /// How many may still be shown; none if there is no limit.
    left: Option<u64>,
    keys_only: bool,
    /// Read and not shown yet: the first page is read before anything is said.
    ready: Option<Found>,
    /// Whether the list goes on behind what was read.
    more: bool,
    revision: u64,
}

impl<V: Reads> Listing<'_, V> {
    /// Reads the next keys.
    async fn read(&mut self) -> Result<(), Failure> {
        let left = self.left.map_or(PAGE_KEYS, |left| left.min(PAGE_KEYS as u64) as usize);
        let found = self.view.list(&self.prefix, self.after.as_ref(), left, self.keys_only).await;
        let found = found.map_err(|error| failure(error, "read"))?;
        self.more = !found.ended;
        self.revision = found.revision;
        self.after = found.records.last().map(|record| record.key.clone()).or(self.after.take());
        self.left = self.left.map(|left| left.saturating_sub(found.records.len() as u64));
        self.ready = Some(found);
        Ok(())
    }

    /// The next keys; none at the end or at the limit.
    async fn next_page(&mut self) -> Result<Option<Vec<Record>>, Failure> {
        if self.ready.is_none() {
            if !self.more || self.left == Some(0) {
                return Ok(None);
            }
            self.read().await?;
        }
        let mut page = self.ready.take().map(|found| found.records).unwrap_or_default();
        // The prefix was asked for already; nothing is shown on the strength of that alone.
        page.retain(|record| self.access.may_read(&record.key));
        if self.keys_only {
            page.iter_mut().for_each(|record| record.value = None);
        }
        Ok(Some(page))
    }

    /// Everything in one answer, as far as it fits.
    pub(super) async fn collect(mut self) -> Result<Page, Failure> {
        let mut answer = Page { revision: self.revision, ..Page::default() };
        let mut bytes = 0;
        while let Some(page) = self.next_page().await? {
            for record in page {
                bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
                if bytes > ANSWER_BYTES_MAX && !answer.items.is_empty() {
                    return Ok(Page { more: true, ..answer });
                }
                answer.items.push(record);
            }
        }
        Ok(Page { more: self.more, ..answer })
    }

    /// Everything to standard output, as fast as the client takes it. A failure in the middle of
    /// it is told after what was sent already.
    pub(super) async fn stream(
        mut self,
        format: Format,
        output: &Output,
    ) -> Result<Result<(), Failure>, Gone> {
        let mut out = Vec::new();
        if format == Format::Json {
            let revision = self.revision;
            out.extend_from_slice(format!("{{\"ok\":true,\"revision\":{revision},").as_bytes());
            out.extend_from_slice(b"\"items\":[");
        }
        let mut first = true;
        loop {
            let page = match self.next_page().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(failure) => {
                    send(output, out.into()).await?;
                    return Ok(Err(failure));
                }
            };
            for record in page {
                if format == Format::Table {
                    write_row(&mut out, &record);
                } else {
                    if !first {
                        out.push(b',');
                    }
                    write_record(&mut out, &record);
                }
                first = false;
                if out.len() >= OUTPUT_BYTES {
                    send(output, std::mem::take(&mut out).into()).await?;
                }
            }
        }
        if format == Format::Json {
            let end = format!("],\"more\":{}}}\n", self.more);
            out.extend_from_slice(end.as_bytes());
        }
        send(output, out.into()).await.map(Ok)
    }
}

/// Makes a list ready: rights, and the read that it starts from.
pub(super) async fn open<'a, B: Backend>(
    executor: &Executor<B>,
    access: &'a Access,
    verb: Verb,
    deadline: Instant,
) -> Result<Listing<'a, B::View>, Failure> {
    let Verb::List { prefix, after, limit, keys_only, consistency } = verb else {
        unreachable!("only lists are listed");
    };
    access.list(&prefix)?;
    let view = executor.view(consistency, deadline).await?;
    let (left, ready, more, revision) = (limit, None, true, 0);
    let mut listing =
        Listing { view, access, prefix, after, left, keys_only, ready, more, revision };
    listing.read().await?;
    Ok(listing)
}
