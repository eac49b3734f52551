import Testing

@testable import LinearAlgebra

@Suite struct OpenBLASTests {
  @Test func theLibraryIsNamed() {
    #expect(OpenBLAS.version.hasPrefix("OpenBLAS"))
    #expect(!OpenBLAS.core.isEmpty)
  }
}
