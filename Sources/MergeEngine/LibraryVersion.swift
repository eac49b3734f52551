/// The library's version, in one place; the header's macros are checked against it.
public enum LibraryVersion {
  public static let string = "0.1.0"
}
