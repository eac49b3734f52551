/* Jansson, and the one macro of it that Swift cannot import. */
#ifndef STOCKPOT_JANSSON_SHIM_H
#define STOCKPOT_JANSSON_SHIM_H

#include <jansson.h>

static inline int stockpot_json_type(const json_t *value) { return (int)json_typeof(value); }
static inline void stockpot_json_release(json_t *value) { json_decref(value); }

#endif
