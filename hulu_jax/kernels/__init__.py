"""Operations that decide the speed: each a reference that is its meaning, and faster ways to it."""
