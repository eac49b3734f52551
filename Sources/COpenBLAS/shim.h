/* The few Fortran symbols of OpenBLAS and LAPACK that Stockpot calls. Debian's OpenBLAS ships no LAPACKE, and its cblas.h would
 * drag in names we do not use; integers are 32-bit (LP64). Character arguments carry a hidden length at the end (gfortran). */
#ifndef STOCKPOT_OPENBLAS_SHIM_H
#define STOCKPOT_OPENBLAS_SHIM_H

#include <stddef.h>

/* Singular value decomposition, divide and conquer, binary64. */
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u, const int *ldu,
             double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info, size_t jobz_length);

/* Eigendecomposition of a symmetric matrix, divide and conquer, binary64. */
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length, size_t uplo_length);

/* C = alpha * op(A) * op(B) + beta * C, binary64, column-major. */
void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c, const int *ldc,
            size_t transa_length, size_t transb_length);

/* One triangle of C = alpha * A * A^T + beta * C, or of A^T * A, binary64, column-major. */
void dsyrk_(const char *uplo, const char *trans, const int *n, const int *k, const double *alpha, const double *a,
            const int *lda, const double *beta, double *c, const int *ldc, size_t uplo_length, size_t trans_length);

void openblas_set_num_threads(int count);
const char *openblas_get_config(void);
const char *openblas_get_corename(void);

#endif
