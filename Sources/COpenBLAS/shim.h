/* The few Fortran symbols of OpenBLAS and LAPACK that Stockpot calls. Debian's OpenBLAS ships no LAPACKE, and its cblas.h would
 * drag in names we do not use; integers are 32-bit (LP64). Character arguments carry a hidden length at the end (gfortran). */
#ifndef STOCKPOT_OPENBLAS_SHIM_H
#define STOCKPOT_OPENBLAS_SHIM_H

#include <stddef.h>

/* Singular value decomposition, divide and conquer, binary64. */
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u, const int *ldu,
             double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info, size_t jobz_length);

/* Tridiagonal form of a symmetric matrix, by reflectors. */
void dsytrd_(const char *uplo, const int *n, double *a, const int *lda, double *d, double *e, double *tau, double *work,
             const int *lwork, int *info, size_t uplo_length);

/* Eigendecomposition of a symmetric tridiagonal matrix, divide and conquer. */
void dstedc_(const char *compz, const int *n, double *d, double *e, double *z, const int *ldz, double *work, const int *lwork,
             int *iwork, const int *liwork, int *info, size_t compz_length);

/* The triangular factor of a block of reflectors, and the block applied to a matrix. */
void dlarft_(const char *direct, const char *storev, const int *n, const int *k, double *v, const int *ldv, const double *tau,
             double *t, const int *ldt, size_t direct_length, size_t storev_length);
void dlarfb_(const char *side, const char *trans, const char *direct, const char *storev, const int *m, const int *n,
             const int *k, const double *v, const int *ldv, const double *t, const int *ldt, double *c, const int *ldc,
             double *work, const int *ldwork, size_t side_length, size_t trans_length, size_t direct_length,
             size_t storev_length);

/* Cholesky factorisation, and the inverse from it; one triangle, binary64 and binary32. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
void dpotri_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t uplo_length);
void spotri_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t uplo_length);

/* dgemm and dsyrk in binary32. */
void sgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const float *alpha,
            const float *a, const int *lda, const float *b, const int *ldb, const float *beta, float *c, const int *ldc,
            size_t transa_length, size_t transb_length);
void ssyrk_(const char *uplo, const char *trans, const int *n, const int *k, const float *alpha, const float *a,
            const int *lda, const float *beta, float *c, const int *ldc, size_t uplo_length, size_t trans_length);

/* C = alpha * A * B + beta * C, or B * A, for a symmetric A of which one triangle is read; binary64 and binary32. */
void dsymm_(const char *side, const char *uplo, const int *m, const int *n, const double *alpha, const double *a,
            const int *lda, const double *b, const int *ldb, const double *beta, double *c, const int *ldc, size_t side_length,
            size_t uplo_length);
void ssymm_(const char *side, const char *uplo, const int *m, const int *n, const float *alpha, const float *a, const int *lda,
            const float *b, const int *ldb, const float *beta, float *c, const int *ldc, size_t side_length,
            size_t uplo_length);

/* C = alpha * op(A) * op(B) + beta * C, binary64, column-major. */
void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c, const int *ldc,
            size_t transa_length, size_t transb_length);

/* One triangle of C = alpha * A * A^T + beta * C, or of A^T * A, binary64, column-major. */
void dsyrk_(const char *uplo, const char *trans, const int *n, const int *k, const double *alpha, const double *a,
            const int *lda, const double *beta, double *c, const int *ldc, size_t uplo_length, size_t trans_length);

/* y = alpha * A * x + beta * y for a symmetric matrix, binary32. */
void ssymv_(const char *uplo, const int *n, const float *alpha, const float *a, const int *lda, const float *x, const int *incx,
            const float *beta, float *y, const int *incy, size_t uplo_length);

void openblas_set_num_threads(int count);
const char *openblas_get_config(void);
const char *openblas_get_corename(void);

#endif
