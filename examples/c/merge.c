/* Merges checkpoints by a recipe in JSON:  merge RECIPE.json OUTPUT
 *
 *     gcc examples/c/merge.c -Iinclude -Lbuild -lstockpot -Wl,-rpath,$PWD/build -o merge
 *     echo '{"merge_method": "linear", "models": ["a", "b"]}' >recipe.json && ./merge recipe.json merged
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stockpot.h"

static int32_t show(const sp_progress *progress, void *user) {
  (void)user;
  fprintf(stderr, "\r%3.0f %%  %-60.60s", 100.0 * (double)progress->bytes_done / (double)(progress->bytes_total + 1),
          progress->tensor);
  return 0; /* anything else cancels */
}

static char *read_text(const char *path) {
  FILE *file = fopen(path, "rb");
  char *text = calloc(1, 1 << 20);
  if (file == NULL || text == NULL) {
    free(text);
    if (file != NULL) fclose(file);
    return NULL;
  }
  if (fread(text, 1, (1 << 20) - 1, file) == 0) text[0] = 0;
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  sp_error error = SP_ERROR_INIT;
  sp_job *job = NULL;
  char *recipe = argc == 3 ? read_text(argv[1]) : NULL;
  if (recipe == NULL) {
    fprintf(stderr, "usage: merge RECIPE.json OUTPUT\n");
    return 2;
  }
  if (sp_job_create(recipe, argv[2], NULL, &job, &error) != SP_OK || sp_job_run(job, show, NULL, &error) != SP_OK) {
    fprintf(stderr, "\nerror: %s\n", error.message);
    sp_job_free(job);
    free(recipe);
    return 1;
  }
  fprintf(stderr, "\rdone: %s%60s\n", argv[2], "");
  sp_job_free(job);
  free(recipe);
  return 0;
}
