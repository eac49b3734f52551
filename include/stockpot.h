/* stockpot.h: the whole C interface of libstockpot, the checkpoint-merging library.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rules that hold for every function
 * ----------------------------------
 * Errors.    A function that can fail returns sp_status: SP_OK (0) or a negative code whose value never changes. Its last
 *            parameter is a caller-owned sp_error, which may be NULL; on failure it receives the code and one sentence that
 *            names the file, the tensor and the remedy. The text is for people and may be reworded; the code is the contract.
 * Safety.    Every argument is checked before it is used. NULL where the text does not allow it, counts above PTRDIFF_MAX,
 *            misaligned data, overlapping buffers and unknown codes give an error, never a crash. What cannot be checked:
 *            that a pointer is readable (or writable) for the size stated, and that a string is NUL-terminated.
 * Ownership. The library never returns memory for the caller to free, except handles, each with its own _free function, which
 *            accepts NULL. Returned strings are borrowed: static, or valid until the named handle is freed or used again.
 *            Arguments are borrowed for the duration of the call.
 * Threads.   Functions without a handle may be called from any thread at any time. A handle is used by one thread at a time;
 *            the exceptions (sp_job_cancel, sp_job_progress) are marked. Workers are created per call and joined before it
 *            returns, so a fork() between calls is safe. `threads` = 0 means the usable CPUs (affinity and cgroup quota).
 * Results.   Identical bytes for any number of threads, block size, shard layout and order of work.
 * Numbers.   Where all inputs and the output are BF16, or all F16, they are widened to binary32 and subtracted there, and products
 *            are summed in binary32 for at most 64 additions a lane and in binary64 beyond; all else is computed in binary64.
 *            A sum of squares that leaves the range of binary32 is taken again in binary64. Results are rounded once, to
 *            nearest-even, into the output type; NaN becomes a quiet NaN; a value above the largest finite one becomes infinity
 *            (NaN in F8_E4M3FN, which has none).
 * Structs.   Structs that begin with struct_size are filled by the caller with sizeof; a smaller size is extended with zeros,
 *            a larger one is accepted if the tail is zero. Zero means the default in every field.
 */
#ifndef STOCKPOT_H
#define STOCKPOT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ------------------------------------------------------------------------------------------------------------ */

#define SP_VERSION_MAJOR 0
#define SP_VERSION_MINOR 1
#define SP_VERSION_PATCH 0
#define SP_ABI_VERSION 0

/** "major.minor.patch" of the loaded library. Static string. */
const char *sp_version_string(void);

/** SP_ABI_VERSION of the loaded library: compare it with the header's before anything else. */
int32_t sp_abi_version(void);

/** Size in bytes of a struct of this header as the library was compiled, by name ("sp_view"); 0 for an unknown name or NULL.
 *  For bindings that mirror the structs by hand. */
size_t sp_struct_size(const char *name);

/** JSON object: version, compiler, target, OpenBLAS version and core, Jansson version. Static string. */
const char *sp_build_json(void);

/* ---- Status and errors -------------------------------------------------------------------------------------------------- */

typedef int32_t sp_status;

#define SP_OK ((sp_status)0)
#define SP_E_ARGUMENT ((sp_status)-10)       /* a count, index, flag or combination of arguments that cannot be */
#define SP_E_NULL ((sp_status)-11)           /* NULL where a pointer is needed */
#define SP_E_ALIGNMENT ((sp_status)-12)      /* data not aligned to its element size */
#define SP_E_OVERLAP ((sp_status)-13)        /* an output that overlaps an input */
#define SP_E_SHAPE ((sp_status)-20)          /* shapes that differ, or a shape that does not match the count */
#define SP_E_DTYPE ((sp_status)-21)          /* an element type that is unknown, or that the operation does not take */
#define SP_E_MISSING_TENSOR ((sp_status)-22) /* a tensor that some input lacks */
#define SP_E_FILE ((sp_status)-30)           /* the system refused to open, read, write or rename */
#define SP_E_NOT_FOUND ((sp_status)-31)      /* no such file, folder or tensor name */
#define SP_E_EXISTS ((sp_status)-32)         /* the output exists, or is one of the inputs */
#define SP_E_FORMAT ((sp_status)-40)         /* a file that is not what it says: truncated, overlapping, lying */
#define SP_E_QUANTIZED ((sp_status)-41)      /* a quantised checkpoint, which cannot be averaged */
#define SP_E_RECIPE ((sp_status)-42)         /* a recipe that cannot be understood */
#define SP_E_METHOD ((sp_status)-50)         /* unknown merge method, or inputs it cannot take */
#define SP_E_PARAMETER ((sp_status)-51)      /* unknown parameter, or a value out of range */
#define SP_E_NON_FINITE ((sp_status)-52)     /* NaN or infinity in an input */
#define SP_E_MEMORY ((sp_status)-60)         /* the work does not fit in max_memory, or allocation failed */
#define SP_E_CANCELLED ((sp_status)-70)      /* cancelled by sp_job_cancel or by the progress callback */
#define SP_E_INTERNAL ((sp_status)-99)       /* a defect of the library: please report it */

/** Symbolic name of a status ("SP_E_SHAPE"); "SP_UNKNOWN" for any other value. Static string. */
const char *sp_status_name(sp_status status);

/** What went wrong. Caller-owned, 512 bytes. message is UTF-8, truncated if need be, always NUL-terminated. */
typedef struct sp_error {
  uint32_t struct_size;
  sp_status status;
  char message[504];
} sp_error;

#define SP_ERROR_INIT                                                                                                          \
  { (uint32_t)sizeof(sp_error), SP_OK, {0} }

/* ---- Element types ------------------------------------------------------------------------------------------------------ */

typedef int32_t sp_dtype;

#define SP_DTYPE_F32 ((sp_dtype)1)
#define SP_DTYPE_F64 ((sp_dtype)2)
#define SP_DTYPE_F16 ((sp_dtype)3)
#define SP_DTYPE_BF16 ((sp_dtype)4)
#define SP_DTYPE_F8_E4M3FN ((sp_dtype)5)
#define SP_DTYPE_F8_E5M2 ((sp_dtype)6)
/* The types below are storage: tensors of these types are copied, never averaged. */
#define SP_DTYPE_BOOL ((sp_dtype)20)
#define SP_DTYPE_U8 ((sp_dtype)21)
#define SP_DTYPE_I8 ((sp_dtype)22)
#define SP_DTYPE_U16 ((sp_dtype)23)
#define SP_DTYPE_I16 ((sp_dtype)24)
#define SP_DTYPE_U32 ((sp_dtype)25)
#define SP_DTYPE_I32 ((sp_dtype)26)
#define SP_DTYPE_U64 ((sp_dtype)27)
#define SP_DTYPE_I64 ((sp_dtype)28)
#define SP_DTYPE_F8_E8M0 ((sp_dtype)29)
#define SP_DTYPE_C64 ((sp_dtype)30)

/** The safetensors name of a type ("BF16"); NULL for an unknown code. Static string. */
const char *sp_dtype_name(sp_dtype dtype);

/** Bytes per element; 0 for an unknown code. */
size_t sp_dtype_size(sp_dtype dtype);

/** A dense tensor in the caller's memory, row-major. */
typedef struct sp_view {
  void *data;              /* aligned to the element size; may be NULL only if count is 0 */
  size_t count;            /* elements; must equal the product of shape[0..rank) (1 for rank 0) */
  int64_t shape[8];        /* each >= 0; entries from rank on are ignored */
  int32_t rank;            /* 0 to 8 */
  sp_dtype dtype;
  size_t row_stride_bytes; /* must be 0: contiguous */
  uint64_t reserved[2];    /* must be 0 */
} sp_view;

/* ---- Kernels, for those who build their own methods --------------------------------------------------------------------- */

/** Convert elements: out[i] = in[i], rounded once to nearest-even.
 *  @param in   any float type, or any type at all if out has the same.
 *  @param out  same count as in; must not overlap it.
 *  NaN becomes the quiet NaN of the output type with the sign kept; -0.0 and subnormals are kept.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE. */
sp_status sp_cast(const sp_view *in, const sp_view *out, sp_error *error);

/** Linear combination: out = sum_i coefficients[i] * inputs[i].
 *  It is computed about one input, C * x_r + sum_{i != r} c_i * (x_i - x_r) with C = sum_i c_i, so equal inputs with C = 1 give
 *  those inputs, bit for bit. x_r is the only input with a negative coefficient, or else the one with the largest.
 *  @param inputs        input_count >= 1 views of float type and equal count; types may differ.
 *  @param coefficients  [input_count], finite.
 *  @param threads       0: usable CPUs.
 *  @param out           float type, same count; must not overlap an input.
 *  A NaN or infinity in an input makes that element of the output NaN or infinite; an input with coefficient 0 is not read.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_MEMORY. */
sp_status sp_combine(const sp_view *inputs, size_t input_count, const double *coefficients, int32_t threads, const sp_view *out,
                     sp_error *error);

/** Gram matrix of differences: out_gram[i * n + j] = <x_i - r, x_j - r>, n = input_count.
 *  @param inputs     1 to 1024 views of float type and equal count; types may differ.
 *  @param reference  same count; NULL means r = 0, the Gram matrix of the inputs themselves (which loses digits when the
 *                    inputs are close to one another: prefer a reference).
 *  @param threads    0: usable CPUs.
 *  @param out_gram   [n, n] binary64, symmetric. Zeros if count is 0.
 *  A NaN or infinity in an input makes its row and column NaN or infinite.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_SHAPE, SP_E_DTYPE, SP_E_MEMORY. */
sp_status sp_gram(const sp_view *inputs, size_t input_count, const sp_view *reference, int32_t threads, double *out_gram,
                  sp_error *error);

/** Weights a (sum 1) of the geometric median sum_i a_i x_i = argmin_y sum_i w_i |x_i - y|, from the Gram matrix of the points
 *  about any common reference (sp_gram), by Weiszfeld's iteration started at the weighted mean.
 *  @param gram           [count, count] binary64, symmetric, finite.
 *  @param count          1 to 1024.
 *  @param point_weights  [count], > 0; NULL: all 1.
 *  @param eps            distances are floored at eps. 0: no floor, and an iterate that meets a point takes the step of Vardi
 *                        and Zhang (2000), so that the result does not depend on the scale of the data.
 *  @param maxiter        >= 0; 0 returns the weighted mean.
 *  @param ftol           stop when the objective (the w-weighted average distance) changes by at most ftol times itself.
 *  @param out_weights    [count].
 *  @param out_iterations may be NULL.   @param out_objective may be NULL.
 *  Source: Weiszfeld 1937; Vardi and Zhang, PNAS 97(4), 2000.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_NON_FINITE. */
sp_status sp_geometric_median_weights(const double *gram, size_t count, const double *point_weights, double eps, int32_t maxiter,
                                      double ftol, double *out_weights, int32_t *out_iterations, double *out_objective,
                                      sp_error *error);

/* ---- Methods ------------------------------------------------------------------------------------------------------------ */

/** How many merge methods there are. */
size_t sp_method_count(void);

/** Name of method `index` ("model_stock"), in the order of the documentation; NULL past the end. Static string. */
const char *sp_method_name(size_t index);

/** What a method is and takes, as a JSON object: name, title, summary, family, citation, inputs {base, min_models, max_models},
 *  parameters [{name, type, default, choices, minimum, maximum, per_model, summary, source}], reports [name, ...].
 *  NULL for an unknown name or NULL. Static string. */
const char *sp_method_schema(const char *name);

/** A merge method with its parameters. Immutable but for the report of its last merge: one thread at a time. */
typedef struct sp_method sp_method;

/** @param name             one of sp_method_name.
 *  @param parameters_json  JSON object of parameters as the schema names them; NULL or "{}": all defaults. A parameter that is
 *                          unknown, or out of range, is an error. Per-model parameters take a number or one per model.
 *  @param out              receives the handle; NULL on failure. Free with sp_method_free.
 *  @return SP_OK, SP_E_NULL, SP_E_METHOD, SP_E_PARAMETER, SP_E_FORMAT (the JSON). */
sp_status sp_method_create(const char *name, const char *parameters_json, sp_method **out, sp_error *error);

/** Merge one tensor in memory.
 *  @param models       model_count views of equal shape.
 *  @param base         same shape; NULL if the method takes none.
 *  @param tensor_name  UTF-8, for messages, ignore_keys and random masks; NULL: "".
 *  @param threads      0: usable CPUs.
 *  @param out          same shape, float type of any width; must not overlap an input. Its content is undefined on failure.
 *  Views of a non-float type are not merged: the base's (else the first model's) bytes are copied, and out must have its type.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_METHOD (number of
 *          models, base), SP_E_PARAMETER (a list whose length is not model_count), SP_E_NON_FINITE, SP_E_MEMORY. */
sp_status sp_method_merge(sp_method *method, const sp_view *models, size_t model_count, const sp_view *base,
                          const char *tensor_name, int32_t threads, const sp_view *out, sp_error *error);

/** What the last sp_method_merge decided, as a JSON object: the entries that the schema lists under "reports", and warnings.
 *  "{}" before the first merge. Valid until the next merge with this handle or its _free. NULL for NULL. */
const char *sp_method_report_json(const sp_method *method);

void sp_method_free(sp_method *method);

/* ---- Checkpoints -------------------------------------------------------------------------------------------------------- */

/** A checkpoint opened for reading: a folder with model.safetensors.index.json, a folder with *.safetensors files, or a single
 *  .safetensors file. Immutable: any number of threads may read it. */
typedef struct sp_checkpoint sp_checkpoint;

typedef struct sp_tensor_info {
  uint32_t struct_size;
  sp_dtype dtype;
  int32_t rank;     /* 0 to 8 */
  uint32_t reserved;
  int64_t shape[8];
  uint64_t bytes;   /* count * sp_dtype_size(dtype) */
  const char *name; /* UTF-8; valid until the checkpoint is freed */
  const char *file; /* path of the file that holds it; valid until the checkpoint is freed */
} sp_tensor_info;

/** Read and check every header of a checkpoint; no tensor is read.
 *  @return SP_OK, SP_E_NULL, SP_E_NOT_FOUND, SP_E_FILE, SP_E_FORMAT. */
sp_status sp_checkpoint_open(const char *path, sp_checkpoint **out, sp_error *error);

/** Number of tensors; 0 for NULL. */
size_t sp_checkpoint_tensor_count(const sp_checkpoint *checkpoint);

/** Describe tensor `index`; tensors are ordered by name.
 *  @param out  struct_size set by the caller.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (index, struct_size), SP_E_SHAPE (rank above 8). */
sp_status sp_checkpoint_tensor_info(const sp_checkpoint *checkpoint, size_t index, sp_tensor_info *out, sp_error *error);

/** Index of the tensor called `name`.  @return SP_OK, SP_E_NULL, SP_E_NOT_FOUND. */
sp_status sp_checkpoint_find(const sp_checkpoint *checkpoint, const char *name, size_t *out_index, sp_error *error);

/** Read the bytes of tensor `index` (little-endian, row-major) into `buffer`.
 *  @param capacity  bytes in buffer; at least the tensor's.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (index, capacity), SP_E_FILE, SP_E_FORMAT (the file has shrunk). */
sp_status sp_checkpoint_read(const sp_checkpoint *checkpoint, size_t index, void *buffer, size_t capacity, sp_error *error);

/** The __metadata__ of the first file, as a JSON object of strings. Valid until the checkpoint is freed. NULL for NULL. */
const char *sp_checkpoint_metadata_json(const sp_checkpoint *checkpoint);

void sp_checkpoint_free(sp_checkpoint *checkpoint);

/** Write tensors from memory as a safetensors checkpoint, in the reference writer's order and alignment.
 *  @param path           ends in ".safetensors": one file. Otherwise a folder: model.safetensors, or shards with an index.
 *  @param names          [count] UTF-8 names, all different.
 *  @param views          [count].
 *  @param metadata_json  JSON object of strings for __metadata__ ({"format": "pt"} is added unless given); may be NULL.
 *  @param shard_size     bytes per shard of a folder; 0: 5,000,000,000.
 *  @param overwrite      0: an existing path is an error. 1: it is replaced, once the new one is complete.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_SHAPE, SP_E_DTYPE, SP_E_EXISTS, SP_E_FILE, SP_E_FORMAT. */
sp_status sp_checkpoint_save(const char *path, const char *const *names, const sp_view *views, size_t count,
                             const char *metadata_json, uint64_t shard_size, uint32_t overwrite, sp_error *error);

/* ---- Jobs: a recipe, planned and run ------------------------------------------------------------------------------------- */

/** A merge of whole checkpoints. One thread at a time, but for sp_job_cancel and sp_job_progress. */
typedef struct sp_job sp_job;

typedef struct sp_job_options {
  uint32_t struct_size;
  int32_t threads;         /* 0: usable CPUs */
  uint64_t max_memory;     /* bytes of buffers, 0: no limit but the default block size */
  uint64_t shard_size;     /* bytes of a shard, 0: 5,000,000,000 */
  uint32_t overwrite;      /* 1: replace an existing output, once the merge has succeeded */
  uint32_t resume;         /* 1: go on from <output>.partial where its plan is the same */
  uint32_t strict;         /* 1: unknown keys and parameters of the recipe are errors, not warnings */
  uint32_t reserved;
  const char *recipe_text; /* the recipe as its author wrote it, for the model card; NULL: the JSON */
} sp_job_options;

#define SP_JOB_OPTIONS_INIT                                                                                                    \
  { (uint32_t)sizeof(sp_job_options), 0, 0, 0, 0, 0, 0, 0, NULL }

/** How far a job is. */
typedef struct sp_progress {
  uint32_t struct_size;
  int32_t phase;          /* 0 planned, 1 merging, 2 finishing, 3 done, 4 failed */
  uint64_t tensors_done;
  uint64_t tensors_total;
  uint64_t bytes_done;    /* of output tensors */
  uint64_t bytes_total;
  char tensor[256];       /* name of the tensor begun last, truncated, NUL-terminated */
} sp_progress;

/** Called during sp_job_run from one thread at a time, not always the same, at most about 20 times a second.
 *  @return 0 to go on; anything else cancels the job. */
typedef int32_t (*sp_progress_fn)(const sp_progress *progress, void *user);

/** Read a recipe and the headers of its inputs, and plan every tensor and byte of the output. Writes nothing.
 *  @param recipe_json  the recipe (docs/recipes.md). Relative paths are relative to the working directory.
 *  @param output_path  a folder, or a file name that ends in ".safetensors"; NULL: only to plan.
 *  @param options      NULL: defaults.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_RECIPE, SP_E_METHOD, SP_E_PARAMETER, SP_E_NOT_FOUND, SP_E_FILE, SP_E_FORMAT,
 *          SP_E_EXISTS, SP_E_MISSING_TENSOR, SP_E_SHAPE, SP_E_DTYPE, SP_E_QUANTIZED, SP_E_MEMORY. */
sp_status sp_job_create(const char *recipe_json, const char *output_path, const sp_job_options *options, sp_job **out,
                        sp_error *error);

/** The plan as a JSON object: inputs, donor, every output file and tensor with its byte range, bytes to read and write, memory,
 *  warnings. Valid until the job is freed. NULL for NULL. */
const char *sp_job_plan_json(const sp_job *job);

/** Run the plan. Work happens beside the output, in <output>.partial, and appears there by one rename at the end; on failure
 *  nothing is left at the output path. A job runs once.
 *  @param progress  may be NULL.   @param user  handed to progress.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (no output path, or run before), SP_E_FILE, SP_E_FORMAT, SP_E_EXISTS,
 *          SP_E_NON_FINITE, SP_E_MEMORY, SP_E_CANCELLED. */
sp_status sp_job_run(sp_job *job, sp_progress_fn progress, void *user, sp_error *error);

/** How far the job is. From any thread.  @param out  struct_size set by the caller.  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT. */
sp_status sp_job_progress(const sp_job *job, sp_progress *out);

/** Ask a running job to stop within a block. From any thread, also before sp_job_run. NULL is ignored. */
void sp_job_cancel(sp_job *job);

/** What was decided for each tensor, and warnings: the JSON of merge_report.json. NULL until sp_job_run has succeeded.
 *  Valid until the job is freed. */
const char *sp_job_report_json(const sp_job *job);

void sp_job_free(sp_job *job);

#ifdef __cplusplus
}
#endif
#endif /* STOCKPOT_H */
