//! What threads share, under real threads, for a sanitizer that watches their memory accesses: see
//! CONTRIBUTING.md. Without one it only checks that nothing is lost.

mod group;
mod pool;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    for _ in 0..5 {
        pool::submit();
        pool::serve()?;
        group::publish()?;
    }
    println!("nothing was lost");
    Ok(())
}
