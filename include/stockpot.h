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

/* ---- Task vectors: thresholds, signs and masks ---------------------------------------------------------------------------- */

/** The rank-th largest magnitude |input - reference|, exactly, without a sort.
 *  @param input          float type.
 *  @param reference      same count, float type; NULL: zeros.
 *  @param rank           1 for the largest, up to the count.
 *  @param threads        0: usable CPUs.
 *  @param out_threshold  the magnitude: rounded to binary32 unless an input is F64, which is how magnitudes are ranked.
 *  @param out_above      how many elements are above it.   @param out_equal  how many are equal to it.   Either may be NULL.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (rank), SP_E_ALIGNMENT, SP_E_SHAPE, SP_E_DTYPE, SP_E_NON_FINITE, SP_E_MEMORY. */
sp_status sp_magnitude_threshold(const sp_view *input, const sp_view *reference, uint64_t rank, int32_t threads,
                                 double *out_threshold, uint64_t *out_above, uint64_t *out_equal, sp_error *error);

/** Elected signs of task vectors: out[e] = -1, 0 or 1, the sign that TIES elects for element e of models[i] - base.
 *  @param models     1 to 65536 views of float type and equal shape.
 *  @param base       same shape, float type.
 *  @param rule       "mass", "count", "normfrac" or "normmass", as the parameter `elect` of ties.
 *  @param zero_sign  "plus", "majority" or "drop", what a vote of 0 becomes.
 *  @param threads    0: usable CPUs.
 *  @param out        I8 view of the models' shape; must not overlap an input.
 *  Source: Yadav et al., arXiv:2306.01708.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_PARAMETER (rule,
 *          zero_sign), SP_E_NON_FINITE, SP_E_MEMORY. */
sp_status sp_elect_signs(const sp_view *models, size_t model_count, const sp_view *base, const char *rule, const char *zero_sign,
                         int32_t threads, const sp_view *out, sp_error *error);

/** TALL masks: out_masks[i][e] = |d_i| > l_i |tau - d_i| for the task vectors d_i = models[i] - base and their multi-task vector.
 *  @param models           1 to 65536 views of float type and equal shape.
 *  @param base             same shape, float type.
 *  @param parameters_json  the parameters of the method tall_mask (tall_mask_lambda, use_ties, ...); NULL: its defaults.
 *  @param tensor_name      UTF-8, for messages; NULL: "".
 *  @param threads          0: usable CPUs.
 *  @param out_masks        [model_count] BOOL views of the models' shape, which receive 0 or 1; none may overlap an input.
 *  Source: Wang et al., arXiv:2405.07813.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_PARAMETER, SP_E_FORMAT,
 *          SP_E_NON_FINITE, SP_E_MEMORY. */
sp_status sp_tall_masks(const sp_view *models, size_t model_count, const sp_view *base, const char *parameters_json,
                        const char *tensor_name, int32_t threads, const sp_view *out_masks, sp_error *error);

/** The random mask that DARE and its kin apply: out[j] = 1 where element start + j is kept with probability `keep`, else 0.
 *  Philox4x32-10, addressed by element, so any stretch can be made alone; the stream is described in docs/masks.md.
 *  @param seed         the parameter random_seed.
 *  @param tensor_name  UTF-8; NULL: "".
 *  @param model        index of the model, from 0.
 *  @param keep         0 to 1.
 *  @param start        first element.
 *  @param out          [count] bytes.
 *  Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT. */
sp_status sp_random_mask(uint64_t seed, const char *tensor_name, uint32_t model, double keep, uint64_t start, size_t count,
                         uint8_t *out, sp_error *error);

/* ---- Linear algebra, of one matrix --------------------------------------------------------------------------------------- */

/** Polar factor: Q = U Vt of the thin singular value decomposition A = U diag(sigma) Vt.
 *  @param matrix      A [m, n] of float type.
 *  @param complete    0: the partial isometry of the sigma_j > tolerance * sigma_1, zero elsewhere. 1: all min(m, n)
 *                     directions, those of zero singular values being whatever LAPACK chooses.
 *  @param tolerance   0 to 1; used where complete is 0.
 *  @param out         Q [m, n], float type; must not overlap matrix.
 *  Computed in binary64 on one thread and rounded once. By the smaller Gram matrix where that is good to 1e-6 (1e-10 for
 *  F64), else by the singular value decomposition. An empty matrix gives an empty one, a zero matrix zeros (complete = 0).
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_NON_FINITE (a NaN or an
 *          infinity in matrix, or LAPACK does not converge).
 *  Source: Higham, Functions of Matrices, 2008, chapter 8. */
sp_status sp_polar_factor(const sp_view *matrix, uint32_t complete, double tolerance, const sp_view *out, sp_error *error);

/** The `rank` largest singular triplets of A: A v_j = s_j u_j, At u_j = s_j v_j, s_1 >= s_2 >= ...
 *  @param matrix  A [m, n] of float type.
 *  @param rank    k <= min(m, n); may be 0.
 *  @param out_u   U [m, k], float type.
 *  @param out_s   s [k], float type.
 *  @param out_vt  Vt [k, n], float type. No output overlaps the matrix or another output.
 *  Computed in binary64 on one thread and rounded once. By the smaller Gram matrix, with the residuals of all triplets
 *  tested (1e-9 s_1, and orthogonality 1e-8), else by the singular value decomposition. The largest component of each
 *  v_j is positive.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (rank), SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_NON_FINITE (a
 *          NaN or an infinity in matrix, or LAPACK does not converge).
 *  Source: Golub and Van Loan, Matrix Computations, 8.6. */
sp_status sp_truncated_svd(const sp_view *matrix, size_t rank, const sp_view *out_u, const sp_view *out_s,
                           const sp_view *out_vt, sp_error *error);

/** The rank k of the low-rank part that sp_low_rank_plus_sparse makes of a [rows, columns] matrix: the shapes of its outputs.
 *  @param rows, columns    1 to 2147483647.
 *  @param parameters_json  as there.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_PARAMETER, SP_E_FORMAT (the JSON). */
sp_status sp_low_rank_plus_sparse_rank(size_t rows, size_t columns, const char *parameters_json, size_t *out_rank,
                                       sp_error *error);

/** Low rank plus sparse: W ~ U V + S, by num_iters alternations between the best rank-k part of W diag(sqrt d) - S and the
 *  largest elements of what is left.
 *  @param w                [m, n] of float type, not empty.
 *  @param scale            d [n] of float type, finite and >= 0 (floored at 1e-12 times its largest): how much each column
 *                          counts, the second moments of its inputs for example; NULL: ones.
 *  @param parameters_json  JSON object of sparsity, rank_ratio, num_iters, mask_strategy, prune_n, prune_m, target_rank,
 *                          unstruct_sparse and refit, which mean what they mean in the method scale_svd; NULL: its defaults.
 *  @param out_u            U [m, k], float type, k from sp_low_rank_plus_sparse_rank.
 *  @param out_v            V [k, n], float type.
 *  @param out_sparse       S [m, n], float type, zero outside the mask. No output overlaps an input or another output.
 *  Computed in binary64 on one thread and rounded once. Of equal magnitudes the lower index is dropped first.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (scale), SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE, SP_E_DTYPE, SP_E_PARAMETER,
 *          SP_E_FORMAT (the JSON), SP_E_NON_FINITE (a NaN or an infinity in w, or LAPACK does not converge).
 *  Source: Zhang and Papyan, OATS, arXiv:2409.13652; the seed document "Scale-SVD". */
sp_status sp_low_rank_plus_sparse(const sp_view *w, const sp_view *scale, const char *parameters_json, const sp_view *out_u,
                                  const sp_view *out_v, const sp_view *out_sparse, sp_error *error);

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

/** A checkpoint opened for reading: a folder with model.safetensors.index.json, a folder with *.safetensors files, a single
 *  .safetensors file, the same with files of torch.save, or org/name[@revision] of the local Hugging Face cache. Immutable: any
 *  number of threads may read it. */
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
 *  @param path  a model reference (docs/recipes.md) without an adapter.
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

/* ---- Layer statistics: what goes into the layers of a model, per input channel ------------------------------------------- */

/** Statistics of layer inputs, by parameter name: accumulated batch by batch, merged across processes, saved as one file that a
 *  recipe names under `statistics:`. One thread at a time.
 *  Each layer keeps its rows, and per channel their mean and sum of squared deviations, in binary64, so both statistics follow:
 *    "second_moment"  deviations / rows + mean^2, the mean of the squares
 *    "variance"       deviations / (rows - 1), unbiased; 0 for one row
 *  The same calls give the same bits. Rows that are cut into other calls, or merged in another order, change rounding only:
 *  docs/statistics.md has the bounds. A channel that is constant has variance 0. */
typedef struct sp_statistics sp_statistics;

/** @param statistic  "second_moment" or "variance": what is read and saved; NULL: "second_moment".
 *  @param out        receives the handle; NULL on failure. Free with sp_statistics_free.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (not UTF-8), SP_E_PARAMETER. */
sp_status sp_statistics_create(const char *statistic, sp_statistics **out, sp_error *error);

/** Add the rows of an array to a layer, known or new. On failure nothing is added.
 *  @param name          of the parameter that multiplies this input ("blocks.0.mlp.c_fc.weight").
 *  @param view          float type, rank >= 1: every axis but one counts rows. Without rows it is checked and adds nothing.
 *  @param channel_axis  axis of the input channels, -rank to rank - 1: -1 for tokens, 1 for [batch, channel, height, width].
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (name, axis), SP_E_ALIGNMENT, SP_E_SHAPE (no channels, or not as many as before),
 *          SP_E_DTYPE, SP_E_NON_FINITE (NaN or infinity, or squares beyond binary64). */
sp_status sp_statistics_update(sp_statistics *statistics, const char *name, const sp_view *view, int32_t channel_axis,
                               sp_error *error);

/** Add all layers of another collection, whatever its statistic. On failure nothing is added.
 *  @param from  not `statistics` itself; unchanged.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_SHAPE (another number of channels), SP_E_NON_FINITE (beyond binary64). */
sp_status sp_statistics_merge(sp_statistics *statistics, const sp_statistics *from, sp_error *error);

/** Number of layers that have rows; 0 for NULL. */
size_t sp_statistics_count(const sp_statistics *statistics);

/** Name of layer `index`; layers are ordered by name. NULL past the end. Valid until the handle is freed. */
const char *sp_statistics_name(const sp_statistics *statistics, size_t index);

/** Size of layer `index`.
 *  @param out_channels  may be NULL.   @param out_rows  may be NULL.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (index), SP_E_ALIGNMENT. */
sp_status sp_statistics_layer(const sp_statistics *statistics, size_t index, size_t *out_channels, uint64_t *out_rows,
                              sp_error *error);

/** The statistic of layer `index`.
 *  @param out  [channels], any float type; rounded once.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (index), SP_E_ALIGNMENT, SP_E_SHAPE, SP_E_DTYPE. */
sp_status sp_statistics_read(const sp_statistics *statistics, size_t index, const sp_view *out, sp_error *error);

/** All that is known of layer `index` besides its rows, to be carried to another process.
 *  @param out_means       [channels] binary64.
 *  @param out_deviations  [channels] binary64: sums of squared deviations from the mean.
 *  @param channels        of both arrays; must be the layer's.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (index), SP_E_ALIGNMENT, SP_E_OVERLAP, SP_E_SHAPE. */
sp_status sp_statistics_state(const sp_statistics *statistics, size_t index, double *out_means, double *out_deviations,
                              size_t channels, sp_error *error);

/** Add what sp_statistics_layer and sp_statistics_state gave for a layer. A new layer gets that state bit for bit.
 *  @param rows        1 to 2^53.
 *  @param means       [channels] binary64, finite.
 *  @param deviations  [channels] binary64, finite, >= 0.
 *  @param channels    1 to 2^31 - 1.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (name, rows, channels), SP_E_ALIGNMENT, SP_E_SHAPE, SP_E_NON_FINITE. */
sp_status sp_statistics_add_state(sp_statistics *statistics, const char *name, uint64_t rows, const double *means,
                                  const double *deviations, size_t channels, sp_error *error);

/** Save the statistic as a safetensors file: name to [channels] F32, rounded once, with __metadata__ {"format":
 *  "stockpot.layer_statistics", "version": "1", "statistic": its name, "counts": JSON object of rows by name}.
 *  @param path       ends in ".safetensors".
 *  @param overwrite  0: an existing path is an error. 1: it is replaced, once the new one is complete.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT (path, or no layer), SP_E_NON_FINITE (beyond F32), SP_E_EXISTS, SP_E_FILE. */
sp_status sp_statistics_save(const sp_statistics *statistics, const char *path, uint32_t overwrite, sp_error *error);

void sp_statistics_free(sp_statistics *statistics);

/* ---- Jobs: a recipe, planned and run ------------------------------------------------------------------------------------- */

/** A merge of whole checkpoints, or the reconstruction of one. One thread at a time, but for sp_job_cancel and sp_job_progress. */
typedef struct sp_job sp_job;

typedef struct sp_job_options {
  uint32_t struct_size;
  int32_t threads;         /* 0: usable CPUs */
  uint64_t max_memory;     /* bytes of plan, buffers and scratch, 0: no limit but the default block size */
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

/** Plan to rebuild a task model from a merged one and a TALL mask or a correction (docs/masks.md); sp_job_run does it.
 *  @param merged_path      the merged checkpoint.
 *  @param correction_path  a folder under masks/ or corrections/ that a merge wrote.
 *  @param base_path        for a mask, the base of the merge; NULL: the one that the mask names. Not used for a correction.
 *  @param output_path      a folder, or a file name that ends in ".safetensors".
 *  @param options          NULL: defaults. resume, strict and recipe_text have no effect.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_NOT_FOUND, SP_E_FILE, SP_E_FORMAT, SP_E_EXISTS, SP_E_MISSING_TENSOR, SP_E_SHAPE,
 *          SP_E_MEMORY. */
sp_status sp_job_create_reconstruction(const char *merged_path, const char *correction_path, const char *base_path,
                                       const char *output_path, const sp_job_options *options, sp_job **out, sp_error *error);

/** Plan to make a LoRA adapter in PEFT's layout (adapter_config.json, adapter_model.safetensors) out of a model and the base it was
 *  tuned from: the truncated SVD of each matrix's difference, in binary64. sp_job_run does it; sp_job_report_json then has the
 *  relative error of each tensor, and what the adapter cannot hold.
 *  @param base_path, model_path  model references.
 *  @param output_path            a folder.
 *  @param parameters_json        {"rank": 16}, and any of "include", "exclude", "save_modules" (lists of module names or patterns),
 *                                "fan_in_fan_out" (null: by the model's type), "dtype" ("float32", "bfloat16", "float16").
 *  @param options                NULL: defaults. shard_size, resume, strict and recipe_text have no effect.
 *  @return SP_OK, SP_E_NULL, SP_E_ARGUMENT, SP_E_RECIPE, SP_E_PARAMETER, SP_E_NOT_FOUND, SP_E_FILE, SP_E_FORMAT, SP_E_EXISTS,
 *          SP_E_MISSING_TENSOR, SP_E_SHAPE, SP_E_QUANTIZED, SP_E_MEMORY. */
sp_status sp_job_create_lora_extraction(const char *base_path, const char *model_path, const char *output_path,
                                        const char *parameters_json, const sp_job_options *options, sp_job **out,
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

/** What was decided for each tensor, and warnings: the JSON of merge_report.json, or of reconstruct_report.json. NULL until sp_job_run has succeeded.
 *  Valid until the job is freed. */
const char *sp_job_report_json(const sp_job *job);

void sp_job_free(sp_job *job);

#ifdef __cplusplus
}
#endif
#endif /* STOCKPOT_H */
