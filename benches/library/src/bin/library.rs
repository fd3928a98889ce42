//! Measures the library.
//!
//! - `serve …`: see the crate.
//! - `rate THREADS LAUNCHES SCENARIO PROGRAM`: launches in several threads at once. Prints the seconds and
//!   the number of failed launches.
//! - `decode FILE COUNT`: decodes the message in FILE, COUNT times in each of 31 samples. Prints the bytes,
//!   and for each sample the nanoseconds of one decoding. The last line has the allocations in all samples.

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nsexec::bootstrap::Dialect;
use nsexec::bootstrap::message::decode;
use nsexec_bench_library::{Scenario, serve};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every request on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory is from `alloc` above, and so from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SAMPLES: usize = 31;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", ..] => serve(&words[1..], |launcher| launcher.spawn()),
        ["serve-copy", ..] => serve(&words[1..], |launcher| launcher.copy_memory().spawn()),
        ["rate", threads, launches, ..] => rate(threads.parse()?, launches.parse()?, &words[3..]),
        ["decode", file, count] => time_decode(&std::fs::read(file)?, count.parse()?),
        _ => Err("the commands are serve, serve-copy, rate and decode".into()),
    }
}

fn rate(threads: usize, launches: usize, words: &[String]) -> Result<(), Box<dyn Error>> {
    let scenario = Scenario::parse(words)?;
    let (begun, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < launches {
                    if let Err(error) = scenario.launch(|launcher| launcher.spawn()) {
                        eprintln!("library: {error}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("{} {}", begin.elapsed().as_secs_f64(), failed.load(Ordering::Relaxed));
    Ok(())
}

fn time_decode(message: &[u8], count: u32) -> Result<(), Box<dyn Error>> {
    let (_, len) = decode(message, &Dialect::V1_2).map_err(|error| error.to_string())?;
    println!("{len}");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut samples = [0.0; SAMPLES];
    for sample in &mut samples {
        let begin = Instant::now();
        for _ in 0..count {
            let _ = black_box(decode(black_box(message), &Dialect::V1_2));
        }
        *sample = begin.elapsed().as_secs_f64() * 1e9 / f64::from(count);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    samples.iter().for_each(|sample| println!("{sample}"));
    println!("{allocations}");
    Ok(())
}
