//! A simulated field organisation, reproducible from a seed
