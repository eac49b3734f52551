/* The header alone, as C11: layouts are what the bindings mirror, and every function can be called. */
#include "stockpot.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(sp_error) == 512, "sp_error");
_Static_assert(offsetof(sp_error, message) == 8, "sp_error.message");
_Static_assert(sizeof(sp_view) == 112, "sp_view");
_Static_assert(offsetof(sp_view, shape) == 16, "sp_view.shape");
_Static_assert(offsetof(sp_view, row_stride_bytes) == 88, "sp_view.row_stride_bytes");
_Static_assert(sizeof(sp_tensor_info) == 104, "sp_tensor_info");
_Static_assert(sizeof(sp_job_options) == 48, "sp_job_options");
_Static_assert(sizeof(sp_progress) == 296, "sp_progress");

static int failures = 0;

static void expect(int condition, const char *what) {
  if (condition) return;
  printf("failed: %s\n", what);
  failures += 1;
}

static sp_view view(void *data, size_t count, sp_dtype dtype) {
  sp_view result;
  memset(&result, 0, sizeof result);
  result.data = data;
  result.count = count;
  result.shape[0] = (int64_t)count;
  result.rank = 1;
  result.dtype = dtype;
  return result;
}

static int32_t cancelling(const sp_progress *progress, void *user) {
  *(int *)user += 1;
  return progress->tensors_total > 0;
}

static void queries(void) {
  char expected[32];
  snprintf(expected, sizeof expected, "%d.%d.%d", SP_VERSION_MAJOR, SP_VERSION_MINOR, SP_VERSION_PATCH);
  expect(strcmp(sp_version_string(), expected) == 0, "version macros and library agree");
  expect(sp_abi_version() == SP_ABI_VERSION, "ABI version");
  expect(sp_struct_size("sp_view") == sizeof(sp_view), "size of sp_view");
  expect(sp_struct_size("sp_error") == sizeof(sp_error), "size of sp_error");
  expect(sp_struct_size("sp_tensor_info") == sizeof(sp_tensor_info), "size of sp_tensor_info");
  expect(sp_struct_size("sp_job_options") == sizeof(sp_job_options), "size of sp_job_options");
  expect(sp_struct_size("sp_progress") == sizeof(sp_progress), "size of sp_progress");
  expect(sp_struct_size("other") == 0 && sp_struct_size(NULL) == 0, "size of an unknown struct");
  expect(strstr(sp_build_json(), "openblas") != NULL, "build JSON names OpenBLAS");
  expect(strcmp(sp_status_name(SP_E_SHAPE), "SP_E_SHAPE") == 0, "status name");
  expect(strcmp(sp_status_name(12345), "SP_UNKNOWN") == 0, "unknown status name");
  expect(strcmp(sp_dtype_name(SP_DTYPE_BF16), "BF16") == 0 && sp_dtype_name(99) == NULL, "dtype name");
  expect(sp_dtype_size(SP_DTYPE_BF16) == 2 && sp_dtype_size(99) == 0, "dtype size");
}

static void kernels(void) {
  float a[3] = {1, 2, 3}, b[3] = {3, 2, 1}, c[3];
  double wide[3], gram[4], weights[2], coefficients[2] = {0.5, 0.5}, objective;
  int32_t iterations;
  sp_view inputs[2] = {view(a, 3, SP_DTYPE_F32), view(b, 3, SP_DTYPE_F32)};
  sp_view out = view(c, 3, SP_DTYPE_F32), out_wide = view(wide, 3, SP_DTYPE_F64);
  sp_error error = SP_ERROR_INIT;
  expect(sp_cast(&inputs[0], &out_wide, &error) == SP_OK && wide[2] == 3, "cast");
  expect(sp_combine(inputs, 2, coefficients, 1, &out, &error) == SP_OK && c[0] == 2, "combine");
  expect(sp_gram(inputs, 2, NULL, 0, gram, &error) == SP_OK && gram[0] == 14 && gram[1] == 10, "gram");
  expect(sp_geometric_median_weights(gram, 2, NULL, 0, 100, 0, weights, &iterations, &objective, &error) == SP_OK, "median");
  expect(weights[0] == 0.5, "median of two points");
  inputs[0].dtype = 77;
  expect(sp_cast(&inputs[0], &out, &error) == SP_E_DTYPE && error.status == SP_E_DTYPE, "unknown dtype");
  expect(strstr(error.message, "77") != NULL, "the message names the code");
  expect(sp_cast(NULL, &out, NULL) == SP_E_NULL, "NULL view");
}

static sp_view matrix(void *data, int64_t rows, int64_t columns) {
  sp_view result = view(data, (size_t)(rows * columns), SP_DTYPE_F64);
  result.shape[0] = rows;
  result.shape[1] = columns;
  result.rank = 2;
  return result;
}

static void linear_algebra(void) {
  double a[6] = {3, 0, 0, 0, 0, 4}, q[6], u[4], s[2], vt[6], scale[3] = {1, 1, 1}, factor_u[2], factor_v[3], sparse[6];
  size_t rank = 0;
  sp_view input = matrix(a, 2, 3), out = matrix(q, 2, 3), out_u = matrix(u, 2, 2), out_s = view(s, 2, SP_DTYPE_F64);
  sp_view out_vt = matrix(vt, 2, 3), weights = view(scale, 3, SP_DTYPE_F64), left = matrix(factor_u, 2, 1);
  sp_view right = matrix(factor_v, 1, 3), rest = matrix(sparse, 2, 3);
  sp_error error = SP_ERROR_INIT;
  expect(sp_polar_factor(&input, 0, 1e-6, &out, &error) == SP_OK && q[0] > 0.999 && q[5] > 0.999, "polar factor");
  expect(sp_polar_factor(&input, 2, 1e-6, &out, &error) == SP_E_ARGUMENT, "complete is a flag");
  expect(sp_polar_factor(&input, 0, 1e-6, &input, &error) == SP_E_OVERLAP, "a polar factor in place");
  expect(sp_truncated_svd(&input, 2, &out_u, &out_s, &out_vt, &error) == SP_OK, "truncated SVD");
  expect(s[0] > 3.999 && s[1] < 3.001, "singular values");
  expect(sp_truncated_svd(&input, 3, &out_u, &out_s, &out_vt, &error) == SP_E_ARGUMENT, "rank above the smaller side");
  expect(sp_low_rank_plus_sparse_rank(2, 3, "{\"target_rank\": 1}", &rank, &error) == SP_OK && rank == 1, "rank of a part");
  expect(sp_low_rank_plus_sparse(&input, &weights, "{\"target_rank\": 1}", &left, &right, &rest, &error) == SP_OK, "parts");
  expect(factor_u[1] * factor_v[2] + sparse[5] > 3.999, "the parts add up");
  expect(sp_low_rank_plus_sparse(&input, NULL, "{\"then\": 1}", &left, &right, &rest, &error) == SP_E_PARAMETER, "parameters");
}

static void task_vectors(void) {
  float base[4] = {0, 0, 0, 0}, first[4] = {3, -1, 1, 2}, second[4] = {-1, -1, -1, 2};
  int8_t signs[4];
  uint8_t masks[2][4], random[8], part[5];
  double threshold = 0;
  uint64_t above = 9, equal = 9;
  sp_view models[2] = {view(first, 4, SP_DTYPE_F32), view(second, 4, SP_DTYPE_F32)};
  sp_view center = view(base, 4, SP_DTYPE_F32), out = view(signs, 4, SP_DTYPE_I8);
  sp_view out_masks[2] = {view(masks[0], 4, SP_DTYPE_BOOL), view(masks[1], 4, SP_DTYPE_BOOL)};
  sp_error error = SP_ERROR_INIT;

  expect(sp_magnitude_threshold(&models[0], &center, 3, 1, &threshold, &above, &equal, &error) == SP_OK, "threshold");
  expect(threshold == 1 && above == 2 && equal == 2, "third largest of 3 1 1 2");
  expect(sp_magnitude_threshold(&models[0], &models[1], 1, 0, &threshold, NULL, NULL, &error) == SP_OK && threshold == 4,
         "threshold of a difference");
  expect(sp_magnitude_threshold(&models[0], NULL, 1, 0, &threshold, &above, NULL, &error) == SP_OK && threshold == 3,
         "threshold without a reference");
  expect(sp_magnitude_threshold(&models[0], NULL, 0, 0, &threshold, NULL, NULL, &error) == SP_E_ARGUMENT, "rank 0");
  expect(sp_magnitude_threshold(&models[0], NULL, 5, 0, &threshold, NULL, NULL, &error) == SP_E_ARGUMENT, "rank 5 of 4");
  expect(sp_magnitude_threshold(&models[0], NULL, 1, 0, NULL, NULL, NULL, &error) == SP_E_NULL, "no place for the threshold");
  expect(sp_magnitude_threshold(NULL, NULL, 1, 0, &threshold, NULL, NULL, &error) == SP_E_NULL, "no input");
  expect(sp_magnitude_threshold(&out, NULL, 1, 0, &threshold, NULL, NULL, &error) == SP_E_DTYPE, "threshold of integers");

  expect(sp_elect_signs(models, 2, &center, "mass", "plus", 1, &out, &error) == SP_OK, "signs");
  expect(signs[0] == 1 && signs[1] == -1 && signs[2] == 1 && signs[3] == 1, "signs by mass");
  expect(sp_elect_signs(models, 2, &center, "count", "drop", 0, &out, &error) == SP_OK, "signs by count");
  expect(signs[0] == 0 && signs[1] == -1 && signs[2] == 0 && signs[3] == 1, "votes of 0 are dropped");
  expect(sp_elect_signs(models, 2, &center, "none", "plus", 0, &out, &error) == SP_E_PARAMETER, "no rule of that name");
  expect(sp_elect_signs(models, 2, &center, "mass", "minus", 0, &out, &error) == SP_E_PARAMETER, "no zero sign of that name");
  expect(sp_elect_signs(models, 0, &center, "mass", "plus", 0, &out, &error) == SP_E_ARGUMENT, "no models");
  expect(sp_elect_signs(models, 2, NULL, "mass", "plus", 0, &out, &error) == SP_E_NULL, "no base");
  expect(sp_elect_signs(models, 2, &center, NULL, "plus", 0, &out, &error) == SP_E_NULL, "no rule");
  expect(sp_elect_signs(models, 2, &center, "mass", "plus", 0, &center, &error) == SP_E_DTYPE, "signs are I8");

  expect(sp_tall_masks(models, 2, &center, "{\"tall_mask_lambda\": 0.4}", "w", 1, out_masks, &error) == SP_OK, "masks");
  expect(masks[0][0] == 1 && masks[0][1] == 1 && masks[0][2] == 1 && masks[0][3] == 1, "mask of the first model");
  expect(masks[1][0] == 0 && masks[1][1] == 1 && masks[1][2] == 1 && masks[1][3] == 1, "mask of the second model");
  expect(sp_tall_masks(models, 2, &center, NULL, NULL, 0, out_masks, &error) == SP_OK && masks[1][0] == 0, "masks by default");
  expect(sp_tall_masks(models, 2, &center, "{\"k\": 2}", NULL, 0, out_masks, &error) == SP_E_PARAMETER, "no such parameter");
  expect(sp_tall_masks(models, 2, &center, "[]", NULL, 0, out_masks, &error) == SP_E_FORMAT, "parameters are an object");
  expect(sp_tall_masks(models, 2, &center, NULL, NULL, 0, NULL, &error) == SP_E_NULL, "no masks");
  out_masks[1] = out_masks[0];
  expect(sp_tall_masks(models, 2, &center, NULL, NULL, 0, out_masks, &error) == SP_E_OVERLAP, "masks over each other");

  expect(sp_random_mask(7, "w", 1, 0.5, 0, 8, random, &error) == SP_OK, "random mask");
  expect(sp_random_mask(7, "w", 1, 0.5, 3, 5, part, &error) == SP_OK && memcmp(random + 3, part, 5) == 0, "a part of it");
  expect(sp_random_mask(7, NULL, 1, 1, 0, 8, random, &error) == SP_OK && memchr(random, 0, 8) == NULL, "everything kept");
  expect(sp_random_mask(7, "w", 1, 0, 0, 8, random, &error) == SP_OK && memchr(random, 1, 8) == NULL, "nothing kept");
  expect(sp_random_mask(7, "w", 1, 1.5, 0, 8, random, &error) == SP_E_ARGUMENT, "a probability above 1");
  expect(sp_random_mask(7, "w", 1, 0.5, UINT64_MAX, 8, random, &error) == SP_E_ARGUMENT, "a start past all elements");
  expect(sp_random_mask(7, "w", 1, 0.5, 0, 8, NULL, &error) == SP_E_NULL, "no place for the mask");
  expect(sp_random_mask(7, "w", 1, 0.5, 0, 0, NULL, NULL) == SP_OK, "nothing asked for");
}

static void methods(void) {
  float base[2] = {0, 0}, model[2] = {1, 2}, result[2];
  sp_view base_view = view(base, 2, SP_DTYPE_F32), model_view = view(model, 2, SP_DTYPE_F32);
  sp_view out = view(result, 2, SP_DTYPE_F32);
  sp_method *method = NULL;
  sp_error error = SP_ERROR_INIT;
  expect(sp_method_count() > 0 && sp_method_name(0) != NULL && sp_method_name(10000) == NULL, "method names");
  expect(strstr(sp_method_schema("model_stock"), "parameters") != NULL && sp_method_schema("none") == NULL, "schema");
  expect(sp_method_create("task_arithmetic", "{\"lambda\": 0.5}", &method, &error) == SP_OK, "create");
  expect(strcmp(sp_method_report_json(method), "{}") == 0, "report before the first merge");
  expect(sp_method_merge(method, &model_view, 1, &base_view, "w", 0, &out, &error) == SP_OK, "merge");
  expect(result[1] == 1, "merged value");
  expect(strstr(sp_method_report_json(method), "coefficients") != NULL, "report");
  sp_method_free(method);
  expect(sp_method_create("task_arithmetics", NULL, &method, &error) == SP_E_METHOD && method == NULL, "unknown method");
  sp_method_free(NULL);
}

static void statistics(const char *folder) {
  float tokens[4] = {1, 10, 3, 10}, values[2];
  double means[2], deviations[2];
  sp_view input = view(tokens, 4, SP_DTYPE_F32), out = view(values, 2, SP_DTYPE_F32);
  sp_statistics *first = NULL, *second = NULL;
  size_t channels = 0;
  uint64_t rows = 0;
  char path[512];
  sp_error error = SP_ERROR_INIT;
  input.rank = 2;
  input.shape[0] = input.shape[1] = 2;
  expect(sp_statistics_create("variance", &first, &error) == SP_OK, "statistics create");
  expect(sp_statistics_create(NULL, &second, &error) == SP_OK, "statistics create, default");
  expect(sp_statistics_update(first, "w", &input, -1, &error) == SP_OK, "update");
  expect(sp_statistics_count(first) == 1 && sp_statistics_count(NULL) == 0, "statistics count");
  expect(strcmp(sp_statistics_name(first, 0), "w") == 0 && sp_statistics_name(first, 1) == NULL, "statistics name");
  expect(sp_statistics_layer(first, 0, &channels, &rows, &error) == SP_OK && channels == 2 && rows == 2, "layer");
  expect(sp_statistics_state(first, 0, means, deviations, 2, &error) == SP_OK && means[1] == 10, "state");
  expect(sp_statistics_add_state(second, "w", rows, means, deviations, channels, &error) == SP_OK, "add state");
  expect(sp_statistics_merge(second, first, &error) == SP_OK, "statistics merge");
  expect(sp_statistics_read(first, 0, &out, &error) == SP_OK && values[0] == 2 && values[1] == 0, "variance");
  expect(sp_statistics_read(second, 0, &out, &error) == SP_OK && values[0] == 5 && values[1] == 100, "second moment");
  snprintf(path, sizeof path, "%s/c11-statistics.safetensors", folder);
  expect(sp_statistics_save(first, path, 1, &error) == SP_OK, "statistics save");
  expect(sp_statistics_save(first, path, 0, &error) == SP_E_EXISTS, "statistics save again");
  sp_statistics_free(first);
  sp_statistics_free(second);
  sp_statistics_free(NULL);
}

static void checkpoints(const char *folder) {
  float values[4] = {1, 2, 3, 4}, read[4];
  sp_view tensor = view(values, 4, SP_DTYPE_F32);
  const char *name = "w";
  char path[512], output[512], recipe[1600];
  sp_checkpoint *checkpoint = NULL;
  sp_tensor_info info = {.struct_size = sizeof info};
  sp_progress progress = {.struct_size = sizeof progress};
  sp_job_options options = SP_JOB_OPTIONS_INIT;
  sp_job *job = NULL;
  size_t index = 99;
  int calls = 0;
  sp_error error = SP_ERROR_INIT;
  snprintf(path, sizeof path, "%s/c11.safetensors", folder);
  snprintf(output, sizeof output, "%s/c11-merged.safetensors", folder);
  expect(sp_checkpoint_save(path, &name, &tensor, 1, "{\"k\": \"v\"}", 0, 1, &error) == SP_OK, "save");
  expect(sp_checkpoint_open(path, &checkpoint, &error) == SP_OK, "open");
  expect(sp_checkpoint_tensor_count(checkpoint) == 1 && sp_checkpoint_tensor_count(NULL) == 0, "tensor count");
  expect(sp_checkpoint_find(checkpoint, "w", &index, &error) == SP_OK && index == 0, "find");
  expect(sp_checkpoint_tensor_info(checkpoint, 0, &info, &error) == SP_OK && info.bytes == 16, "tensor info");
  expect(sp_checkpoint_read(checkpoint, 0, read, sizeof read, &error) == SP_OK && read[3] == 4, "read");
  expect(sp_checkpoint_read(checkpoint, 0, read, 15, &error) == SP_E_ARGUMENT, "read into too little memory");
  expect(strstr(sp_checkpoint_metadata_json(checkpoint), "\"k\"") != NULL, "metadata");
  sp_checkpoint_free(checkpoint);
  sp_checkpoint_free(NULL);

  snprintf(recipe, sizeof recipe, "{\"merge_method\": \"linear\", \"models\": [{\"model\": \"%s\"}]}", path);
  options.overwrite = 1;
  expect(sp_job_create(recipe, output, &options, &job, &error) == SP_OK, "job create");
  expect(strstr(sp_job_plan_json(job), "bytes_to_write") != NULL, "plan");
  expect(sp_job_report_json(job) == NULL, "no report before the run");
  expect(sp_job_run(job, NULL, NULL, &error) == SP_OK, "run");
  expect(sp_job_progress(job, &progress) == SP_OK && progress.phase == 3 && progress.bytes_done == 16, "progress");
  expect(strstr(sp_job_report_json(job), "linear") != NULL, "report");
  expect(sp_job_run(job, NULL, NULL, &error) == SP_E_ARGUMENT, "a job runs once");
  sp_job_free(job);

  expect(sp_job_create(recipe, output, &options, &job, &error) == SP_OK, "second job");
  expect(sp_job_run(job, cancelling, &calls, &error) == SP_E_CANCELLED && calls == 1, "cancelled by the callback");
  sp_job_free(job);
  expect(sp_job_create(recipe, output, &options, &job, &error) == SP_OK, "third job");
  sp_job_cancel(job);
  expect(sp_job_run(job, NULL, NULL, &error) == SP_E_CANCELLED, "cancelled before the run");
  sp_job_free(job);
  sp_job_cancel(NULL);
  sp_job_free(NULL);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  queries();
  kernels();
  task_vectors();
  linear_algebra();
  methods();
  statistics(argv[1]);
  checkpoints(argv[1]);
  if (failures == 0) printf("c11: all functions called\n");
  return failures != 0;
}
