def write(folder, results, version):
    return None
