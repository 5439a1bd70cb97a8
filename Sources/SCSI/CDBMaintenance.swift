// MAINTENANCE IN and OUT (SPC-4 clauses 6.35, 6.37 and 6.45).

extension CommandDescriptorBlock {
    /// REPORT TARGET PORT GROUPS. A target that knows no extended header may refuse the CDB that asks for it.
    public static func reportTargetPortGroups(
        extendedHeader: Bool = false, allocationByteCount: UInt32
    ) -> Self {
        var block = Self(operationCode: OperationCode.maintenanceIn)
        block.bytes[1] = (extendedHeader ? 0x20 : 0) | ServiceAction.reportTargetPortGroups
        block.setField(at: 6, width: 4, to: UInt64(allocationByteCount))
        return block
    }

    /// SET TARGET PORT GROUPS; the parameter list is `TargetPortGroupChange.encode(_:)`'s.
    public static func setTargetPortGroups(parameterByteCount: UInt32) -> Self {
        var block = Self(operationCode: OperationCode.maintenanceOut)
        block.bytes[1] = ServiceAction.setTargetPortGroups
        block.setField(at: 6, width: 4, to: UInt64(parameterByteCount))
        return block
    }
}
