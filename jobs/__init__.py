"""Ray at the rim: the only place where parts are chosen and joined."""
