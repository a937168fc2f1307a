# The Debian package: `cpack -G DEB` in a build directory. What `cmake --install` puts under its prefix is the binary, the
# man page and the completion; unit and configuration are the package's.
set(CPACK_PACKAGE_NAME weir)
set(CPACK_PACKAGE_VENDOR "the weir authors")
set(CPACK_PACKAGE_CONTACT "The weir authors <weir@packages.invalid>")
set(CPACK_DEBIAN_PACKAGE_MAINTAINER ${CPACK_PACKAGE_CONTACT})
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
# Loaded at run time, or data: not what dpkg-shlibdeps finds.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "adduser, ca-certificates, libwebsockets-evlib-uv")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "redis-server")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "gateway for language-model token streams")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "weir stands in front of model servers (vLLM, llama.cpp, SGLang, Ollama, cloud
APIs) and gives applications one door with OpenAI's and Anthropic's APIs: API
keys, rate limits of requests and tokens, a response cache, several backends,
metrics and logs, at the cost of a bare reverse proxy.")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${CMAKE_SOURCE_DIR}/deploy/debian/conffiles
  ${CMAKE_SOURCE_DIR}/deploy/debian/postinst
  ${CMAKE_SOURCE_DIR}/deploy/debian/prerm
  ${CMAKE_SOURCE_DIR}/deploy/debian/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL weir package)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

# package_compress(IN OUT): gzip's best, without a time stamp.
function(package_compress in out)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${in})
  execute_process(COMMAND gzip -9nc ${in} OUTPUT_FILE ${out} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

set(made ${CMAKE_BINARY_DIR}/package)
file(MAKE_DIRECTORY ${made})
configure_file(${CMAKE_SOURCE_DIR}/deploy/debian/changelog.in ${made}/changelog @ONLY)
package_compress(${made}/changelog ${made}/changelog.gz)
package_compress(${CMAKE_SOURCE_DIR}/deploy/weir.1 ${made}/weir.1.gz)

install(FILES ${made}/weir.1.gz DESTINATION share/man/man1 COMPONENT weir)
install(FILES deploy/weir.bash DESTINATION share/bash-completion/completions RENAME weir COMPONENT weir)
install(FILES LICENSE DESTINATION share/doc/weir RENAME copyright COMPONENT package EXCLUDE_FROM_ALL)
install(FILES ${made}/changelog.gz DESTINATION share/doc/weir COMPONENT package EXCLUDE_FROM_ALL)
install(FILES deploy/weir.example.yaml DESTINATION /etc/weir RENAME weir.yaml COMPONENT package EXCLUDE_FROM_ALL)
install(FILES deploy/weir.service DESTINATION /lib/systemd/system COMPONENT package EXCLUDE_FROM_ALL)

include(CPack)
