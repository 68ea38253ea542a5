//! Writing a file from beginning to end, without ever holding more of it than a page and the plan.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Metas, freelist, and the root bucket.
const FIRST_FREE: u64 = 4;
const ROOT: u64 = 3;

/// A bucket that is to be written. Keys ascend.
pub trait Bucket {
    /// Its name.
    fn name(&self) -> &str;
    /// Number of keys.
    fn count(&self) -> usize;
    /// A key, by position.
    fn key(&self, at: usize) -> Vec<u8>;
    /// Bytes of a value: asked for before the value itself.
    fn value_len(&self, at: usize) -> usize;
    /// A value.
    fn value(&self, at: usize) -> io::Result<Vec<u8>>;
}

/// A bucket that is small enough to be in memory.
pub struct Small {
    /// Its name.
    pub name: &'static str,
    /// Its keys in order, with their values.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Bucket for Small {
    fn name(&self) -> &str {
        self.name
    }

    fn count(&self) -> usize {
        self.pairs.len()
    }

    fn key(&self, at: usize) -> Vec<u8> {
        self.pairs[at].0.clone()
    }

    fn value_len(&self, at: usize) -> usize {
        self.pairs[at].1.len()
    }

    fn value(&self, at: usize) -> io::Result<Vec<u8>> {
        Ok(self.pairs[at].1.clone())
    }
}

/// Elements that share a page.
struct Span {
    first: usize,
    count: usize,
    /// Where the page is, and how many pages it takes.
    id: u64,
    pages: u64,
}

/// Where everything of a bucket goes: level 0 has the leaves, each further level the branches above
/// the one before; the last level is the root page.
struct Plan {
    levels: Vec<Vec<Span>>,
}

impl Plan {
    fn of(bucket: &dyn Bucket, next: &mut u64) -> Self {
        let sizes = (0..bucket.count()).map(|i| bucket.key(i).len() + bucket.value_len(i));
        let mut levels = vec![spans(sizes, next)];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let keys = below.iter().map(|span| first_key(bucket, &levels, levels.len() - 1, span));
            let sizes: Vec<usize> = keys.map(|key| key.len()).collect();
            levels.push(spans(sizes.into_iter(), next));
        }
        Self { levels }
    }

    fn root(&self) -> u64 {
        self.levels.last().map_or(0, |level| level[0].id)
    }
}

/// Packs elements of these sizes (without their fixed part) into pages.
fn spans(sizes: impl Iterator<Item = usize>, next: &mut u64) -> Vec<Span> {
    let mut spans = vec![Span { first: 0, count: 0, id: 0, pages: 0 }];
    let mut used = PAGE_HEADER;
    let mut close = |span: &mut Span, used: usize| {
        span.id = *next;
        span.pages = used.div_ceil(PAGE) as u64;
        *next += span.pages;
    };
    for (at, size) in sizes.enumerate() {
        let size = ELEMENT + size;
        let span = spans.last_mut().expect("never empty");
        if span.count > 0 && (used + size > PAGE || span.count == usize::from(u16::MAX)) {
            close(span, used);
            spans.push(Span { first: at, count: 0, id: 0, pages: 0 });
            used = PAGE_HEADER;
        }
        used += size;
        spans.last_mut().expect("never empty").count += 1;
    }
    close(spans.last_mut().expect("never empty"), used);
    spans
}

/// The first key below a page.
fn first_key(bucket: &dyn Bucket, levels: &[Vec<Span>], level: usize, span: &Span) -> Vec<u8> {
    let mut first = span.first;
    for below in levels[..level].iter().rev() {
        first = below[first].first;
    }
    bucket.key(first)
}

/// Sends a file with these buckets, in pieces, through `send`, which says whether to go on. What
/// remains after each piece is exact.
pub fn write(buckets: &[&dyn Bucket], mut send: impl FnMut(Bytes, u64) -> bool) -> io::Result<()> {
    let mut next = FIRST_FREE;
    let plans: Vec<Plan> = buckets.iter().map(|bucket| Plan::of(*bucket, &mut next)).collect();
    let mut left = next * PAGE as u64;
    let mut send = |page: BytesMut| {
        left -= page.len() as u64;
        send(page.freeze(), left)
    };
    let mut head = BytesMut::new();
    for id in 0..2 {
        head.unsplit(meta(id, next));
    }
    head.unsplit(page(2, FREELIST, 0, 1, 0));
    head.unsplit(root(buckets, &plans)?);
    if !send(head) {
        return Ok(());
    }
    for (bucket, plan) in buckets.iter().zip(&plans) {
        for span in &plan.levels[0] {
            if !send(leaf(*bucket, span)?) {
                return Ok(());
            }
        }
        for level in 1..plan.levels.len() {
            for span in &plan.levels[level] {
                if !send(branch(*bucket, plan, level, span)) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// The header of a page; what follows is padded by [`pad`].
fn page(id: u64, flags: u16, count: usize, pages: u64, extra: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(pages as usize * PAGE + extra);
    out.put_u64_le(id);
    out.put_u16_le(flags);
    out.put_u16_le(u16::try_from(count).expect("spans are cut before"));
    out.put_u32_le(u32::try_from(pages - 1).expect("a value is below 2 GiB"));
    if count == 0 {
        out.resize(PAGE, 0);
    }
    out
}

fn meta(id: u64, pages: u64) -> BytesMut {
    let mut out = page(id, META, 0, 1, 0);
    out.truncate(PAGE_HEADER);
    for number in [MAGIC, VERSION, PAGE as u32, 0] {
        out.put_u32_le(number);
    }
    // Root page and its sequence, freelist, pages, transaction.
    for number in [ROOT, 0, 2, pages, id] {
        out.put_u64_le(number);
    }
    let sum = fnv1a(&out[PAGE_HEADER..]);
    out.put_u64_le(sum);
    out.resize(PAGE, 0);
    out
}

fn leaf(bucket: &dyn Bucket, span: &Span) -> io::Result<BytesMut> {
    let all = span.first..span.first + span.count;
    let mut out = page(span.id, LEAF, span.count, span.pages, 0);
    if span.count == 0 {
        return Ok(out);
    }
    let keys: Vec<Vec<u8>> = all.clone().map(|at| bucket.key(at)).collect();
    let mut data = PAGE_HEADER + ELEMENT * span.count;
    for (i, at) in all.clone().enumerate() {
        out.put_u32_le(0);
        out.put_u32_le(offset(data, PAGE_HEADER + ELEMENT * i));
        out.put_u32_le(offset(keys[i].len(), 0));
        out.put_u32_le(offset(bucket.value_len(at), 0));
        data += keys[i].len() + bucket.value_len(at);
    }
    for (key, at) in keys.iter().zip(all) {
        let value = bucket.value(at)?;
        if value.len() != bucket.value_len(at) {
            return Err(io::Error::other("a value is not as long as it was said to be"));
        }
        out.put_slice(key);
        out.put_slice(&value);
    }
    out.resize(span.pages as usize * PAGE, 0);
    Ok(out)
}

fn branch(bucket: &dyn Bucket, plan: &Plan, level: usize, span: &Span) -> BytesMut {
    let children = &plan.levels[level - 1][span.first..span.first + span.count];
    let keys: Vec<Vec<u8>> =
        children.iter().map(|child| first_key(bucket, &plan.levels, level - 1, child)).collect();
    let mut out = page(span.id, BRANCH, span.count, span.pages, 0);
    let mut data = PAGE_HEADER + ELEMENT * span.count;
    for (i, (child, key)) in children.iter().zip(&keys).enumerate() {
        out.put_u32_le(offset(data, PAGE_HEADER + ELEMENT * i));
        out.put_u32_le(offset(key.len(), 0));
        out.put_u64_le(child.id);
        data += key.len();
    }
    for key in &keys {
        out.put_slice(key);
    }
    out.resize(span.pages as usize * PAGE, 0);
    out
}

/// The page that holds the buckets, which have to be given in the order of their names.
fn root(buckets: &[&dyn Bucket], plans: &[Plan]) -> io::Result<BytesMut> {
    let mut out = page(ROOT, LEAF, buckets.len(), 1, 0);
    let mut data = PAGE_HEADER + ELEMENT * buckets.len();
    for (i, bucket) in buckets.iter().enumerate() {
        out.put_u32_le(IS_BUCKET);
        out.put_u32_le(offset(data, PAGE_HEADER + ELEMENT * i));
        out.put_u32_le(offset(bucket.name().len(), 0));
        out.put_u32_le(BUCKET_HEADER as u32);
        data += bucket.name().len() + BUCKET_HEADER;
    }
    for (bucket, plan) in buckets.iter().zip(plans) {
        out.put_slice(bucket.name().as_bytes());
        out.put_u64_le(plan.root());
        out.put_u64_le(0);
    }
    if out.len() > PAGE {
        return Err(io::Error::other("more buckets than fit into a page"));
    }
    out.resize(PAGE, 0);
    Ok(out)
}

fn offset(to: usize, from: usize) -> u32 {
    u32::try_from(to - from).expect("within a page and its overflow")
}
