"""How a rule, its findings and its remedy are declared, and how rules are asked."""
