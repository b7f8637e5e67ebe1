"""The services. No service imports another."""

import gc

# Imports of torch and transformers make half a million objects that stay. By default, Python looks through them again and again while
# more are made: a tenth of the time that a training worker takes to start.
OBJECTS_BETWEEN_COLLECTIONS = 10_000
gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
