//! A database that is gone for a while: nothing lost, nothing early, and pings are answered with 503.
