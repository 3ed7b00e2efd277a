"""Operations whose cases are generated: torch's operators, and what surrounds them."""
