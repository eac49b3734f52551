import Platform

// Inverse of a symmetric positive definite matrix, by blocks: with A = [B, C; Cᵀ, D] and W = B^-1 C,
//
//   A^-1 = [B^-1 + W S^-1 Wᵀ, -W S^-1; ., S^-1],  S = D - Cᵀ W
//
// B and S are inverted the same way, down to a side of 128, where Cholesky's factorisation and LAPACK's inverse are taken.
//
// Shapes: A [n, n] row-major, replaced; the lower triangle is read and becomes that of the inverse, the upper one is undefined.
// Arithmetic: binary32 or binary64, that of A. The relative error is a few times eps cond(A), twice that of LAPACK's inverse: measured
// in binary32 at order 1536 and a condition of 1000, 2.0e-5 against 1.0e-5.
// Not positive definite: false, A is undefined. NaN: the caller has looked.
// Cost: n³ multiplications, as Cholesky's way, but nearly all in products, which OpenBLAS does at twice the rate of its factorisations and
// triangular inverses, and which idle workers share (Crew.swift) in strips of 384: the same cuts for any number of workers.
// Scratch: n² / 3.
// Source: Higham, Accuracy and Stability of Numerical Algorithms, 2002, 13.1 and 14.

enum SymmetricInverse {
  private static let smallest = 128
  private static let strip = 384

  /// - Returns: was it positive definite?
  static func replace<Element: BLASElement>(_ a: UnsafeMutablePointer<Element>, size n: Int) -> Bool {
    let scratch = PageMemory(byteCount: scratchCount(n) * MemoryLayout<Element>.stride)
    return invert(a, n, n, scratch.start.assumingMemoryBound(to: Element.self))
  }

  /// Bytes that `replace` allocates, in binary64.
  static func workspaceBytes(size n: Int) -> Int { scratchCount(n) * 8 }

  private static func scratchCount(_ n: Int) -> Int {
    guard n > smallest else { return 0 }
    let (h, r) = halves(n)
    // W lives while S is inverted; B is done before.
    return max(scratchCount(h), h * r + scratchCount(r))
  }

  private static func halves(_ n: Int) -> (Int, Int) {
    let first = (n / 2 + 15) / 16 * 16
    return (first, n - first)
  }

  /// Row-major's lower triangle is column-major's upper one.
  private static func invert<Element: BLASElement>(
    _ b: UnsafeMutablePointer<Element>, _ n: Int, _ gap: Int, _ scratch: UnsafeMutablePointer<Element>
  ) -> Bool {
    guard n > smallest else { return Element.choleskyInverse(b, n, gap) }
    let (h, r) = halves(n)
    let c = b + h * gap
    let d = c + h
    let w = scratch
    guard invert(b, h, gap, scratch) else { return false }
    strips(r) { Element.symm(fromLeft: true, h, $0.count, 1, b, gap, c + $0.lowerBound * gap, gap, w + $0.lowerBound * h, h) }
    // The corner above the diagonal of a strip comes with it.
    strips(r) {
      Element.gemm(
        (true, false), $0.upperBound, $0.count, h, -1, c, gap, w + $0.lowerBound * h, h, d + $0.lowerBound * gap, gap)
    }
    guard invert(d, r, gap, scratch + h * r) else { return false }
    strips(h) { Element.symm(fromLeft: false, $0.count, r, -1, d, gap, w + $0.lowerBound, h, c + $0.lowerBound, gap) }
    strips(h) {
      Element.gemm(
        (false, true), $0.upperBound, $0.count, r, -1, c, gap, w + $0.lowerBound, h, b + $0.lowerBound * gap, gap)
    }
    return true
  }

  /// Strips of `length` columns or rows, the longest first.
  private static func strips(_ length: Int, _ body: (Range<Int>) -> Void) {
    let count = (length + strip - 1) / strip
    Crew.each(count) { part in
      let start = (count - 1 - part) * strip
      body(start..<min(start + strip, length))
    }
  }
}
