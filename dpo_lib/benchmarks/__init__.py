"""Steps of ours, of TRL and of others side by side: `make bench`, and appendix G."""
