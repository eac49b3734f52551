/* A host program with a BLAS and LAPACK of its own. Built twice: plainly, and with -DHOST_BLAS, which defines the symbols that
 * the library uses inside and counts who calls them. Both print a hash of one merge that needs LAPACK; the two must agree, and
 * the host's symbols must never be called. */
#include "stockpot.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int calls = 0;

#ifdef HOST_BLAS
void dgesdd_(void) { calls += 1; }
void dgemm_(void) { calls += 1; }
void openblas_set_num_threads(int count) { calls += 1 + count; }
const char *openblas_get_config(void) {
  calls += 1;
  return "host";
}
const char *openblas_get_corename(void) {
  calls += 1;
  return "host";
}
#endif

enum { ROWS = 48, COLUMNS = 32, COUNT = ROWS * COLUMNS };

int main(void) {
  static float models[3][COUNT], result[COUNT];
  sp_view views[3], out;
  sp_method *method = NULL;
  sp_error error = SP_ERROR_INIT;
  uint64_t hash = 1469598103934665603u;
  uint32_t state = 1;
  memset(views, 0, sizeof views);
  for (int k = 0; k < 3; k++) {
    for (int i = 0; i < COUNT; i++) {
      state = state * 1664525u + 1013904223u;
      models[k][i] = (float)(state >> 8) / 16777216.0f - 0.5f;
    }
    views[k].data = models[k];
    views[k].count = COUNT;
    views[k].shape[0] = ROWS;
    views[k].shape[1] = COLUMNS;
    views[k].rank = 2;
    views[k].dtype = SP_DTYPE_F32;
  }
  out = views[0];
  out.data = result;
  if (sp_method_create("yoyo_fusion", "{\"version\": \"v3\", \"use_matrix_boost\": true}", &method, &error) != SP_OK ||
      sp_method_merge(method, views, 3, NULL, "layer.weight", 2, &out, &error) != SP_OK) {
    printf("failed: %s\n", error.message);
    return 1;
  }
  sp_method_free(method);
  for (size_t i = 0; i < sizeof result; i++) hash = (hash ^ ((const unsigned char *)result)[i]) * 1099511628211u;
  if (strstr(sp_build_json(), "\"host\"") != NULL || calls != 0) {
    printf("failed: the host's BLAS was called\n");
    return 1;
  }
  printf("%016llx\n", (unsigned long long)hash);
  return 0;
}
